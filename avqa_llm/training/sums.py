"""The second stretch of the text stage: the language model learns to read clues.

A clue holds an event as the sum of its words (`avqa_llm.training.naming`), and no text ever holds
such a sum: a language model that has read text alone writes loudness and rhythm at chance although
both are in the clues. Here the record stands behind clues that are made of the words' own
embeddings, with the faults that a bridge has: noise, and numbers that lie between two words.

Legend: B clips, N clues of both modalities, L tokens, E width of the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from avqa_llm.prompt import CLUE, Prompt, spoken
from avqa_llm.training.loop import LoopConfig, fit, part_of, shuffled
from avqa_llm.training.packing import Packed, Piece, pack, packed_loss
from avqa_llm.training.rows import ClipRow, drawn, question_blocks

if TYPE_CHECKING:
    from avqa_llm.training.text import TextConfig

NOISE, EMPTY, LOUDNESS = (0.02, 0.09), 0.1, (0.8, 1.25)
"""Deviation of the noise on a clue, and of a clue that holds nothing; factors of its length."""
SCALES = {"s": 21, "e": 21, "n": 21, "l": 5, "r": 5}
"""Words of numbers, `s0` to `s20` and so on: a sum may stand between two neighbours."""


@dataclass(frozen=True, kw_only=True)
class SumsConfig:
    """How clues are read."""

    loop: LoopConfig
    clues: int = 6
    """Of each modality, as many as the bridge will have."""
    questions: int = 6
    """Questions a clip and step."""
    smeared: float = 0.35
    """Share of the numbers that are smeared over a neighbour."""


@dataclass(frozen=True, kw_only=True)
class SumBatch:
    """Sequences, and the clues (B, N, E) at their heads."""

    packed: Packed
    soft_BNE: Tensor

    def to(self, device: Any, **how: Any) -> SumBatch:
        """On a device."""
        moved = self.soft_BNE.to(device, **how)
        return SumBatch(packed=self.packed.to(device, **how), soft_BNE=moved)


class Summed:
    """Makes clues of the words of a language model, as they are when it is made."""

    def __init__(self, words_VE: Tensor, prompt: Prompt, smeared: float) -> None:
        self.prompt, self.smeared = prompt, smeared
        self.mean_E = words_VE.mean(0)
        self.scale = (words_VE - self.mean_E).std()
        self.unit_VE = functional.normalize(words_VE - self.mean_E, dim=-1)
        self.beside: dict[int, list[int]] = {}
        for letter, count in SCALES.items():
            ids = [prompt.text(f"{letter}{n}")[0] for n in range(count)]
            for n, word in enumerate(ids):
                self.beside[word] = [ids[k] for k in (n - 1, n + 1) if 0 <= k < count]

    def clues(self, events: Sequence[str], count: int, rng: np.random.Generator) -> Tensor:
        """Clues (2 count, E) of a record's events: as they are heard, then as they are seen."""
        heard, seen = [], []
        for event in [*events[:count], *[""] * (count - len(events))]:
            name_and_side = event.split()[:2]  # who is off the picture is heard alone
            heard.append(self._clue(event, rng))
            seen.append(self._clue("" if "off" in name_and_side else " ".join(name_and_side), rng))
        return torch.stack(heard + seen)

    def _clue(self, text: str, rng: np.random.Generator) -> Tensor:
        sum_E = torch.zeros_like(self.mean_E)
        for word in self.prompt.text(spoken(text)):
            if word in self.beside and rng.random() < self.smeared:
                own, other = rng.uniform(0.5, 1.0), int(rng.choice(self.beside[word]))
                sum_E += own * self.unit_VE[word] + (1 - own) * self.unit_VE[other]
            else:
                sum_E += self.unit_VE[word]
        noise = rng.uniform(*NOISE) if text else EMPTY
        sum_E = sum_E + torch.from_numpy(rng.normal(0, noise, len(sum_E))).to(sum_E)
        sum_E = sum_E * torch.rsqrt(sum_E.square().mean() + 1e-9) * float(rng.uniform(*LOUDNESS))
        return sum_E * self.scale + self.mean_E


def train_sums(
    config: TextConfig, sums: SumsConfig, model: Any, prompt: Prompt, rows: list[ClipRow],
    *, trunk: Callable[..., Any], folder: Path, resume: bool,
) -> None:  # fmt: skip
    """Train the language model of the text stage further; in place.

    The embeddings of the records' words stay: clues are made of them here, and a bridge will
    learn to make them later.
    """
    table = model.get_input_embeddings().weight
    before = table.detach().clone()
    summed = Summed(before.float(), prompt, sums.smeared)
    kept = torch.tensor(sorted({i for row in rows for i in prompt.text(spoken(row.record))}))
    hook = table.register_hook(lambda gradient: gradient.index_fill(0, kept, 0.0))

    def batch_at(step: int, part: int, parts: int) -> SumBatch:
        rng = np.random.default_rng([sums.loop.seed, step, part])
        chosen = shuffled(len(rows), batch=sums.loop.batch, step=step, seed=sums.loop.seed)
        mine = [rows[i] for i in part_of(chosen, part, parts)]
        return sum_batch(prompt, summed, mine, config, sums, rng)

    def loss(batch: SumBatch) -> dict[str, Tensor]:
        ids_BL = batch.packed.ids_BL
        embeds = model.get_input_embeddings()(ids_BL.clamp(min=0))
        places = (ids_BL == CLUE)[..., None]
        embeds = embeds.masked_scatter(places, batch.soft_BNE.flatten(0, 1).to(embeds))
        return {"loss": packed_loss(trunk, model.lm_head, batch.packed, embeds)}

    fit("sums", model, batch_at, sums.loop, folder=folder, resume=resume, loss=loss)
    hook.remove()
    with torch.no_grad():  # weight decay has no gradient to be kept from
        table[kept] = before[kept]


def sum_batch(
    prompt: Prompt,
    summed: Summed,
    rows: Sequence[ClipRow],
    config: TextConfig,
    sums: SumsConfig,
    rng: np.random.Generator,
) -> SumBatch:
    """Clues, the record that is to be read from them, and questions about it."""
    from avqa_llm.training.text import fitting

    packed, soft = [], []
    for row in rows:
        place, voice, *events = (part.strip() for part in row.record.split(";"))
        soft.append(summed.clues(events, sums.clues, rng))
        head, record = prompt.clip(0, 0, 2 * sums.clues), prompt.record(row.record)
        given = len(prompt.text(f"{place} ; {voice}{' ;' if events else ''}"))  # in no clue
        learn = [False] * (len(head) + given) + [True] * (len(record) - given)
        prefix = Piece(ids=head + record, learn=learn)
        asked = drawn(row.questions, sums.questions, config.favour, rng)
        blocks, _ = question_blocks(
            prompt, asked, n_clues=0, pair=config.pair, drop=config.drop, rng=rng
        )
        packed.append((prefix, fitting(prefix, blocks, config.length)))
    filled = pack(packed, pad_id=prompt.tokenizer.pad_token_id, length=config.length)
    return SumBatch(packed=filled, soft_BNE=torch.stack(soft))
