"""A Whisper of random weights in CTranslate2's format, made without a download.

It hears nothing right, but it goes every way that a real one goes: log-mel, encoder, decoding with
timestamps, alignment of words. Its vocabulary is single bytes, so that it counts as English.
"""

from __future__ import annotations

from pathlib import Path

SPECIAL = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
"""In Whisper's order; the timestamps follow after them."""
TIMESTAMPS = 1501
"""From 0 to 30 s in steps of 20 ms."""


def make_whisper(folder: Path) -> Path:
    """Write the model below `folder` and return the folder that faster-whisper loads."""
    from ctranslate2.converters import TransformersConverter

    source, made = folder / "transformers", folder / "ctranslate2"
    _write_model(source, _write_tokenizer(source))
    TransformersConverter(str(source), copy_files=["tokenizer.json"]).convert(str(made))
    return made


def _write_tokenizer(folder: Path) -> dict[str, int]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: n for n, char in enumerate(bytes_)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[0],
        unk_token=SPECIAL[0],
    )
    fast.save_pretrained(folder)
    return tokenizer.get_vocab()


def _write_model(folder: Path, vocabulary: dict[str, int]) -> None:
    import torch
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

    end, start = vocabulary[SPECIAL[0]], vocabulary[SPECIAL[1]]
    ends = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": end}
    config = WhisperConfig(
        vocab_size=len(vocabulary) + TIMESTAMPS,
        d_model=64,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        decoder_start_token_id=start,
        **ends,
    )
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(suppress_tokens=[], begin_suppress_tokens=[], **ends)
    model.save_pretrained(folder)
