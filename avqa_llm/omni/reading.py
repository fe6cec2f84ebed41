"""A clip that an omni model has read, and what it says about questions then.

Sound and picture are read once into a key-value cache; questions go on from there. All closed
answers of some questions are rated in one pass, as branches of a tree.

Legend: L tokens that follow the clip, K their blocks, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from avqa_llm.omni.inputs import OmniClip
from avqa_llm.omni.model import OmniModel
from avqa_llm.training.packing import Piece, block_logps, pack


@dataclass(frozen=True, kw_only=True)
class Read:
    """What the model knows after a clip."""

    cache: Any
    length: int
    """Tokens in the cache; later ones are cut off again after each use."""
    position: float
    """Of the next token."""

    def rewind(self) -> None:
        """Forget what was read after the clip."""
        if extra := self.cache.get_seq_length() - self.length:
            self.cache.crop(-extra)


@torch.inference_mode()
def read_prefix(model: OmniModel, clip: OmniClip) -> Read:
    """Let the model hear and see a clip."""
    from transformers import DynamicCache

    batch = model.batch([clip], [[]]).to(model.device)
    embeds = model.embed(batch)
    cache = DynamicCache(config=model.thinker.config.get_text_config())
    run = model.trunk(batch, past_key_values=cache, use_cache=True)
    run(inputs_embeds=embeds, attention_mask=batch.packed.mask_B1LL(embeds.dtype))
    length = batch.packed.ids_BL.shape[1]
    return Read(cache=cache, length=length, position=float(batch.positions_3BL.max()) + 1)


def go_on(
    model: OmniModel, read: Read, embeds_1LE: Tensor, mask_11LL: Tensor, positions_1L: Tensor
) -> Any:
    """Read tokens after all that is in the cache; `positions` count from the clip's end."""
    mask_11LX = torch.nn.functional.pad(mask_11LL, (read.cache.get_seq_length(), 0))
    return model.thinker.model.language_model(
        inputs_embeds=embeds_1LE,
        attention_mask=mask_11LX,
        position_ids=(positions_1L + read.position).expand(3, 1, -1),
        past_key_values=read.cache,
        use_cache=True,
    )


@torch.inference_mode()
def rate(
    model: OmniModel, read: Read, questions: Sequence[list[int]], answers: Sequence[list[list[int]]]
) -> list[Tensor]:
    """Log-probabilities of each question's answers, ends of their turns included.

    Args:
        model: the model.
        read: a clip that it has read; it is as before afterwards.
        questions: ids up to where the answer starts.
        answers: for each question, ids of its answers.
    """
    blocks: list[Piece] = []
    first = []
    for question, own in zip(questions, answers, strict=True):
        blocks.append(Piece.of(question, []))
        parent = len(blocks)
        first.append(parent + 1)
        blocks += [Piece.of([], answer, parent) for answer in own]
    packed = pack([(Piece.of([], []), blocks)], pad_id=model.pad_id).to(model.device)
    thinker = model.thinker

    def trunk(*, inputs_embeds: Tensor, attention_mask: Tensor, **own: Any) -> Any:
        positions = packed.positions_BL.float()
        return go_on(model, read, inputs_embeds, attention_mask, positions)

    embeds = thinker.get_input_embeddings()(packed.ids_BL)
    try:
        sums_K = block_logps(trunk, thinker.get_output_embeddings(), packed, embeds)[0]
    finally:
        read.rewind()
    return [sums_K[at : at + len(own)] for at, own in zip(first, answers, strict=True)]


@torch.inference_mode()
def write(model: OmniModel, read: Read, question: list[int], limit: int) -> tuple[list[int], float]:
    """Greedy text after a question, and the probability of its first token."""
    thinker, ids = model.thinker, list(question)
    written: list[int] = []
    at, first = 0, 0.0
    try:
        while len(written) < limit:
            logits_V = _next(model, read, ids, at)
            best = int(logits_V.argmax())
            if not written:
                first = float(logits_V.softmax(-1)[best])
            if best in _ends(thinker, model.chat.end):
                break
            written.append(best)
            at, ids = at + len(ids), [best]
    finally:
        read.rewind()
    return written, first


def _next(model: OmniModel, read: Read, ids: list[int], at: int) -> Tensor:
    thinker = model.thinker
    embeds = thinker.get_input_embeddings()(torch.tensor([ids], device=model.device))
    lowest = torch.finfo(embeds.dtype).min
    mask = torch.full((len(ids), len(ids)), lowest, dtype=embeds.dtype, device=model.device).triu(1)
    positions = torch.arange(at, at + len(ids), device=model.device).float()[None]
    out = go_on(model, read, embeds, mask[None, None], positions)
    logits_V: Tensor = thinker.get_output_embeddings()(out.last_hidden_state[0, -1]).float()
    return logits_V


def _ends(thinker: Any, end: list[int]) -> set[int]:
    """What ends an answer: the mark of the template, and what the base itself ends with."""
    own = thinker.generation_config.eos_token_id if thinker.generation_config else None
    return {*end, *(own if isinstance(own, list) else [own])}
