"""The small tokenizer of the embedded default: byte-fallback BPE over whole words of its world."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

BOS, EOS, PAD = "<s>", "</s>", "<pad>"


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, whole: Iterable[str] = ()) -> Any:
    """Learn a tokenizer from texts. Lower-case; words split at spaces and punctuation.

    Args:
        texts: what the model will read and write.
        vocab_size: including 256 byte tokens, so that any input can be written.
        whole: words that must be one token each.

    Returns:
        A `PreTrainedTokenizerFast` with `<s>`, `</s>` and `<pad>`.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always"),
            pre_tokenizers.Split(Regex(r"[?.,!:;'\"()]"), behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always"), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=[chr(c) for c in range(33, 127)],
        show_progress=False,
    )
    repeated = [w for w in whole for _ in range(2000)]
    byte_tokens = [f"<0x{b:02X}>" for b in range(256)]
    trainer.vocab_size = vocab_size - len(byte_tokens)
    tokenizer.train_from_iterator([*texts, *repeated], trainer)
    return _with_bytes(tokenizer, byte_tokens, PreTrainedTokenizerFast)


def _with_bytes(tokenizer: Any, byte_tokens: list[str], cls: Any) -> Any:
    """Put the 256 byte tokens into the vocabulary: the trainer cannot."""
    import json

    from tokenizers import Tokenizer

    state = json.loads(tokenizer.to_str())
    vocab = state["model"]["vocab"]
    for token in byte_tokens:
        vocab[token] = len(vocab)
    state["model"]["byte_fallback"] = True
    fast = Tokenizer.from_str(json.dumps(state))
    return cls(
        tokenizer_object=fast,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )
