"""Alignment and instruction tuning: the bridge learns to speak to the language model.

Both stages train on packed clips (`packing`): the clip's soft tokens and record first, then
its questions, each with its own clues. *Align* learns to write the record; *instruct* learns
to answer as well. Now and then a modality is taken away, with the record that is still
possible without it, so that a missing sound or picture is nothing new.

Legend: B clips, K questions a clip, L tokens, C clues, E width of the language model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avqa_llm.aggregator import Clues
from avqa_llm.bridge import ClipKeys
from avqa_llm.errors import AnnotationError
from avqa_llm.model import AVQAModel
from avqa_llm.prompt import CLUE, PICTURE, SOUND, spoken
from avqa_llm.tokenbatch import TokenBatch
from avqa_llm.training.features import Features
from avqa_llm.training.loop import LoopConfig, fit, shuffled
from avqa_llm.training.naming import Naming, Slots, slots
from avqa_llm.training.packing import Packed, Piece, pack, packed_loss
from avqa_llm.training.rows import ClipRow, Event, Question, question_blocks


@dataclass(frozen=True, kw_only=True)
class ConnectConfig:
    """One stage: `questions: 0` aligns, more of them instruct."""

    rows: str
    """JSONL of instruction rows, relative to the data folder."""
    features: str
    """Folder with the features of the same clips in the same order."""
    loop: LoopConfig
    questions: int = 0
    """Questions a clip and step; 0: records only."""
    pair: float = 0.15
    drop: float = 0.06
    """Share of the questions' words that are left out."""
    missing: float = 0.15
    """Share of clips from which one modality is taken away."""
    grounding: float = 0.1
    """Weight of the term that draws the clues' attention to where the answer lies."""
    naming: float = 0.0
    """Weight of the contrast between timeline tokens and the names of what is there."""
    events: float = 0.0
    """Weight of the contrast between the standing question's clues and the record's events."""
    train_lora: bool = True
    compile: bool = False
    length: int = 0
    """Tokens that a packed clip is padded to; 0: as many as the batch needs."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's clips with everything that is known about them."""

    sound: TokenBatch
    picture: TokenBatch
    seconds_B: Tensor
    packed: Packed
    words: list[list[int]]
    """What the clues are asked, (1 + K) for each clip: the record first."""
    asked: list[Question | None]
    """The question of each of them; None for the record and for filling."""
    events: list[tuple[Event, ...]]
    slots: list[Slots]
    """What the clues of the standing question are to hold."""


def train_connect(
    name: str, model: AVQAModel, rows: list[ClipRow], features: Features, config: ConnectConfig,
    *, folder: Path, resume: bool,
) -> None:  # fmt: skip
    """Run one stage; the model is trained in place."""
    if len(rows) > len(features.sound_NTD):
        raise AnnotationError(
            f"{config.rows} has {len(rows)} clips, {config.features} only"
            f" {len(features.sound_NTD)}: they must be of the same set"
        )
    for key, parameter in model.llm.named_parameters():
        parameter.requires_grad_(config.train_lora and "lora_" in key)
    naming = Naming()
    trained = nn.ModuleDict({"bridge": model.bridge, "llm": model.llm, "naming": naming})
    trunk: Any = model.inner.model
    if config.compile:
        bridge = model.bridge
        for part in (bridge.read_sound, bridge.read_picture, bridge.aggregator, trunk):
            part.compile(dynamic=False)

    def loss_at(step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([config.loop.seed, step])
        chosen = shuffled(len(rows), batch=config.loop.batch, step=step, seed=config.loop.seed)
        batch = make_batch(model, rows, features, chosen, config, rng)
        return connect_losses(model, trunk, batch, config, naming)

    fit(name, trained, loss_at, config.loop, folder=folder, resume=resume)


def make_batch(
    model: AVQAModel,
    rows: list[ClipRow],
    features: Features,
    chosen: list[int],
    config: ConnectConfig,
    rng: np.random.Generator,
) -> Batch:
    """Draw questions and missing modalities for some clips, and lay out their tokens."""
    sound, picture = features.batch(chosen)
    fate = rng.random(len(chosen)) / max(config.missing, 1e-9)
    deaf, blind = fate < 0.5, (fate >= 0.5) & (fate < 1.0)
    packed, words, asked, held = [], [], [], []
    for n, index in enumerate(chosen):
        row = rows[index]
        pick = rng.permutation(len(row.questions))[: config.questions]
        questions = [row.questions[i] for i in pick]
        prefix, blocks, kept = _lay_out(
            model,
            row,
            questions,
            config,
            rng,
            seconds=features.seconds,
            deaf=bool(deaf[n]),
            blind=bool(blind[n]),
        )
        packed.append((prefix, blocks))
        held.append(
            slots(model.prompt, row, _record(row, deaf=bool(deaf[n]), blind=bool(blind[n])))
        )
        fill = config.questions - len(kept)
        mine: list[Question | None] = [None, *kept, *[None] * fill]
        words += [
            model.prompt.events if q is None else model.prompt.text(spoken(q.question))
            for q in mine
        ]
        asked += mine
    pad = model.prompt.tokenizer.pad_token_id
    return Batch(
        sound=sound.without(torch.from_numpy(deaf)),
        picture=picture.without(torch.from_numpy(blind)),
        seconds_B=torch.full((len(chosen),), round(features.seconds)),
        packed=pack(packed, pad_id=pad, length=config.length or None),
        words=words,
        asked=asked,
        events=[rows[index].events for index in chosen],
        slots=held,
    )


def _lay_out(
    model: AVQAModel,
    row: ClipRow,
    questions: list[Question],
    config: ConnectConfig,
    rng: np.random.Generator,
    *,
    seconds: float,
    deaf: bool,
    blind: bool,
) -> tuple[Piece, list[Piece], list[Question]]:
    """One clip's prefix and blocks, and the questions that have clues, in order of their blocks."""
    prompt, shape, whole = model.prompt, model.config.bridge, round(seconds)
    n_clues = shape.clues * (2 - deaf - blind)
    record = _record(row, deaf=deaf, blind=blind)
    n_sound = 0 if deaf else shape.sound_per_second * whole
    n_picture = 0 if blind else shape.picture_per_second * whole
    prefix = Piece.of(prompt.clip(n_sound, n_picture, n_clues), prompt.record(record))
    if deaf or blind:  # what was looked up in a whole record cannot be looked up now
        questions = [
            Question(question=q.question, steps="", answer=q.answer, evidence=q.evidence)
            for q in questions
        ]
    blocks, kept = question_blocks(
        prompt, questions, n_clues=n_clues, pair=config.pair, drop=config.drop, rng=rng
    )
    if config.length:
        room = config.length - len(prefix.ids)
        while blocks and sum(len(block.ids) for block in blocks) > room:
            blocks.pop(), kept.pop()
    return prefix, blocks, kept


def _record(row: ClipRow, *, deaf: bool, blind: bool) -> str:
    """What can be written down of a clip with what there is of it."""
    if deaf:
        return row.record_without_sound
    return row.record_without_picture if blind else row.record


def connect_losses(
    model: AVQAModel, trunk: Any, batch: Batch, config: ConnectConfig, naming: Naming
) -> dict[str, Tensor]:
    """Next-token loss on record and answers, the grounding of the clues, the names of tokens."""
    keys = model.bridge(batch.sound, batch.picture, batch.seconds_B)
    soft, exists, clues = model.clues(keys, batch.words)
    embeds = _place(model, batch, keys, soft, exists)
    loss = packed_loss(trunk, model.inner.lm_head, batch.packed, embeds)
    losses = {"loss": loss, "tokens": loss}
    if config.grounding and config.questions:
        losses["grounding"] = grounding_loss(clues, batch)
        losses["loss"] = losses["loss"] + config.grounding * losses["grounding"]
    if config.naming:
        losses["naming"] = naming.of_timeline(model, keys, batch.events)
        losses["loss"] = losses["loss"] + config.naming * losses["naming"]
    if config.events:
        each = len(batch.asked) // len(batch.slots)
        losses["events"] = naming.of_events(model, soft[::each], exists[::each], batch.slots)
        losses["loss"] = losses["loss"] + config.events * losses["events"]
    return losses


def _place(model: AVQAModel, batch: Batch, keys: ClipKeys, soft: Tensor, exists: Tensor) -> Tensor:
    """Embeddings of the packed sequences: the clues of each clip's record and questions in turn."""
    clips = len(batch.seconds_B)
    used = torch.tensor([q is not None for q in batch.asked]).view(clips, -1)
    used[:, 0] = True
    exists = exists & used.flatten()[:, None]
    soft, exists = soft.unflatten(0, (clips, -1)).flatten(1, 2), exists.view(clips, -1)
    return model.place(
        batch.packed.ids_BL,
        {
            SOUND: (keys.sound_BQE, keys.sound_there_BQ),
            PICTURE: (keys.picture_BQE, keys.picture_there_BQ),
            CLUE: (soft, exists),
        },
    )


def grounding_loss(clues: Clues, batch: Batch) -> Tensor:
    """Minus the log of the attention that falls on the evidence, over questions that have some.

    A form of attention supervision: the world knows which players an answer rests on, so
    when they sound and where they stand.
    """
    each = len(batch.asked) // len(batch.seconds_B)
    total, count = torch.zeros(()), 0
    for weights_BN, tokens, by_ear in (
        (clues.sound_weights_BN, batch.sound, True),
        (clues.picture_weights_BN, batch.picture, False),
    ):
        for n, question in enumerate(batch.asked):
            clip = n // each
            if question is None or not question.evidence or not tokens.there_BN[clip].any():
                continue
            hit = evidence_tokens(question, tokens, clip, by_ear=by_ear)
            if hit.any():
                total = total - weights_BN[n][hit].sum().clamp(min=1e-4).log()
                count += 1
    return total / max(count, 1)


def evidence_tokens(question: Question, tokens: TokenBatch, clip: int, *, by_ear: bool) -> Tensor:
    """Which tokens (N,) of a clip show what the answer rests on."""
    hit = torch.zeros_like(tokens.there_BN[clip])
    for place in question.evidence:
        if by_ear and place["start_s"] is not None and place["end_s"] is not None:
            times = tokens.times_BN[clip]
            hit |= (times >= place["start_s"]) & (times < place["end_s"])
        elif not by_ear and place["x"] is not None:
            hit |= (tokens.places_BN2[clip, :, 0] - place["x"]).abs() < 0.09
    return hit & tokens.there_BN[clip]
