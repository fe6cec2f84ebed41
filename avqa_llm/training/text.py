"""The small language model of the embedded default, taught the text of its world.

It reads event records and answers questions about them, with steps; what it learns here
is frozen afterwards, and the bridge has to speak to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avqa_llm.labels import LABELS
from avqa_llm.prompt import Prompt, spoken
from avqa_llm.tokenizer import train_tokenizer
from avqa_llm.training.loop import INIT_STD, LoopConfig, fit, part_of, shuffled
from avqa_llm.training.packing import Packed, Piece, pack, packed_loss
from avqa_llm.training.rows import ClipRow, check_favour, drawn, question_blocks, read_rows
from avqa_llm.training.sums import SumsConfig, train_sums

WORD_STD = 0.5
"""Of the word embeddings at the start, so that words differ from one another at once."""


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The language model and what it learns from."""

    rows: str
    """JSONL of instruction rows, relative to the data folder."""
    loop: LoopConfig
    vocab_size: int = 1536
    hidden: int = 192
    layers: int = 4
    heads: int = 6
    intermediate: int = 512
    questions: int = 8
    """Questions a clip and step."""
    favour: dict[str, float] = field(default_factory=dict)
    """How often a question is drawn, by a part of its template; the first that fits counts, and
    questions that nothing fits are drawn with 1."""
    pair: float = 0.15
    """Share of questions that follow another one."""
    drop: float = 0.0
    """Share of the questions' words that are left out, so that no single one is relied on."""
    learn_records: bool = False
    """Also learn to write records. They are mostly chance, which slows the learning of answers."""
    length: int = 288
    """Tokens of a clip with its questions; a clip that would need more is asked fewer of them."""
    sums: SumsConfig | None = None
    """A second stretch, in which records are read from clues."""
    compile: bool = False
    """Compile the network: about twice as fast after the first minute; needs a C++ compiler."""

    def __post_init__(self) -> None:
        check_favour("text.favour", self.favour)


def build_tokenizer(rows: list[ClipRow], vocab_size: int) -> Any:
    """Learn the tokenizer from a part of the rows."""
    texts = []
    for row in rows[:4000]:
        texts.append(spoken(row.record))
        texts += [spoken(f"{q.question} {q.steps}") for q in row.questions]
    whole = [word for label in LABELS for word in spoken(label).split()]
    numbers = [f"{letter}{n}" for letter in "sen" for n in range(41)]
    numbers += [f"{letter}{n}" for letter in "lr" for n in range(5)]
    heads = ["sound:", "picture:", "events:", "clues:", "question:", "answer:", ":", ";"]
    return train_tokenizer(texts, vocab_size=vocab_size, whole=[*whole, *numbers, *heads])


def build_llm(config: TextConfig, tokenizer: Any) -> nn.Module:
    """A fresh Llama of the configured size."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(config.loop.seed)
    llm: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden,
            intermediate_size=config.intermediate,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=1024,
            # Tied, words that are interchangeable in what is written become one word in what is
            # read: after 3500 steps "indoor" and "outdoor" had a cosine of 0.98.
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=INIT_STD,
            attn_implementation="eager",
        )
    )
    nn.init.normal_(llm.get_input_embeddings().weight, std=WORD_STD)
    return llm


def train_text(config: TextConfig, *, data: Path, folder: Path, resume: bool) -> Path:
    """Train tokenizer and language model; returns the directory they are saved in."""
    rows = read_rows(data / config.rows)
    tokenizer = build_tokenizer(rows, config.vocab_size)
    model: Any = build_llm(config, tokenizer)
    prompt = Prompt(tokenizer)
    trunk = torch.compile(model.model, dynamic=False) if config.compile else model.model

    def batch_at(step: int, part: int, parts: int) -> Packed:
        rng = np.random.default_rng([config.loop.seed, step, part])
        chosen = shuffled(len(rows), batch=config.loop.batch, step=step, seed=config.loop.seed)
        mine = [rows[i] for i in part_of(chosen, part, parts)]
        return text_batch(prompt, mine, config, rng)

    def loss(batch: Packed) -> dict[str, Tensor]:
        return {"loss": packed_loss(trunk, model.lm_head, batch)}

    fit("text", model, batch_at, config.loop, folder=folder, resume=resume, loss=loss)
    if config.sums:
        train_sums(
            config, config.sums, model, prompt, rows, trunk=trunk, folder=folder, resume=resume
        )
    out = folder / "llm"
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def text_batch(
    prompt: Prompt, rows: list[ClipRow], config: TextConfig, rng: np.random.Generator
) -> Packed:
    """Records with some of their questions, packed."""
    packed = []
    for row in rows:
        blocks, _ = question_blocks(
            prompt,
            drawn(row.questions, config.questions, config.favour, rng),
            n_clues=0,
            pair=config.pair,
            drop=config.drop,
            rng=rng,
        )
        head, record = prompt.clip(0, 0), prompt.record(row.record)
        prefix = Piece.of(head, record) if config.learn_records else Piece.of(head + record, [])
        packed.append((prefix, fitting(prefix, blocks, config.length)))
    return pack(packed, pad_id=prompt.tokenizer.pad_token_id, length=config.length)


def fitting(prefix: Piece, blocks: list[Piece], length: int) -> list[Piece]:
    """As many of the blocks as the length has room for; the others are asked another time."""
    room, kept = length - len(prefix.ids), []
    for block in blocks:
        if len(block.ids) <= room:
            kept.append(block)
            room -= len(block.ids)
    return kept
