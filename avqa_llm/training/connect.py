"""Alignment and instruction tuning: the bridge learns to speak to the language model.

*Align* trains the bridge alone, on records and captions; *instruct* trains the bridge and a LoRA
adapter on questions. Both learn from batches of `layout`, by next-token loss on what the model is
to say, with further terms that a recipe switches on.

Legend: B clips, K questions a clip, L tokens, C clues, E width of the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avqa_llm.aggregator import Clues
from avqa_llm.bridge import ClipKeys
from avqa_llm.errors import AnnotationError, RecipeError
from avqa_llm.llm import recompute_activations
from avqa_llm.model import AVQAModel
from avqa_llm.prompt import CLUE, PICTURE, SOUND
from avqa_llm.tokenbatch import TokenBatch
from avqa_llm.training.candidates import scored_loss
from avqa_llm.training.contrast import Contrast, ContrastConfig
from avqa_llm.training.debiasing import Debias, DebiasConfig
from avqa_llm.training.features import ClipFeatures
from avqa_llm.training.layout import Batch, make_batch
from avqa_llm.training.loop import LoopConfig, Validate, fit, grouped, shuffled
from avqa_llm.training.naming import Naming
from avqa_llm.training.packing import packed_loss
from avqa_llm.training.rows import ClipRow, Question, check_favour


@dataclass(frozen=True, kw_only=True)
class ConnectConfig:
    """One stage: `questions: 0` learns records alone, more of them answers as well."""

    rows: str
    """What is learned: instruction rows of a set, records of `instruct_data`, or a JSON file of
    one's own. Looked for in the data folder of the run, then as it is written."""
    loop: LoopConfig
    splits: tuple[str, ...] = ()
    """Rows of these splits only; needed where a file holds several."""
    features: str = ""
    """Bandstand set whose arrays belong to the rows; empty: clips are media files."""
    questions: int = 0
    """Questions a clip and step; they share the clip in one sequence."""
    favour: dict[str, float] = field(default_factory=dict)
    """How much more often than others a question is drawn whose template holds these words."""
    steps: bool = True
    """Whether an answer is preceded by what was looked up for it, where rows say that."""
    pair: float = 0.15
    """Share of questions that follow another one, as in a conversation."""
    drop: float = 0.06
    """Share of the questions' words that are left out."""
    missing: float = 0.15
    """Share of clips from which one modality is taken away: modality dropout."""
    tokens: float = 1.0
    """Weight of the loss on the words of records and answers. 0: the language model is not run,
    and the bridge learns from the terms below alone, several times as fast."""
    grounding: float = 0.1
    """Weight of the term that draws the clues' attention to where the answer lies."""
    naming: float = 0.0
    """Weight of the contrast between timeline tokens and the names of what is there."""
    events: float = 0.0
    """Weight of the contrast between the standing question's clues and the record's events."""
    contrast: ContrastConfig | None = None
    """Which sound belongs to which picture."""
    debias: DebiasConfig | None = None
    """What is done against answers that do not rest on the clip."""
    train_bridge: bool = True
    train_lora: bool = True
    checkpointing: bool = False
    """Compute the language model's layers once more in the backward pass: less memory, a third
    more time."""
    group_by_length: bool = False
    """Clips of about the same cost come together: less padding, slightly less chance."""
    compile: bool = False
    length: int = 0
    """Tokens that a packed clip is padded to; 0: as many as the batch needs."""

    def __post_init__(self) -> None:
        check_favour("favour", self.favour)
        if not self.tokens and (self.train_lora or self.debias or self.questions):
            raise RecipeError(
                "tokens 0: the language model is not run, so there is nothing to learn for"
                " train_lora, questions and debias: set them to false, 0 and null"
            )
        if self.debias and (self.length or not self.questions):
            raise RecipeError("debias: needs questions, and length 0 (candidates differ in number)")
        if self.debias and self.debias.opm and self.loop.workers:
            raise RecipeError("debias.opm makes batches anew in the loop: loop.workers must be 0")


@dataclass(frozen=True, kw_only=True)
class AlignConfig(ConnectConfig):
    """Alignment: the language model stays as it is."""

    train_lora: bool = False


def train_connect(
    name: str,
    model: AVQAModel,
    rows: Sequence[ClipRow],
    features: ClipFeatures,
    config: ConnectConfig,
    *,
    folder: Path,
    resume: bool,
    validate: Validate | None = None,
) -> dict[str, float]:
    """Run one stage; the model is trained in place. Returns the validation figures, if any."""
    if len(rows) > len(features):
        raise AnnotationError(
            f"{config.rows} has {len(rows)} clips, {config.features or 'its features'} only"
            f" {len(features)}: they must be of the same set"
        )
    choose_weights(model, bridge=config.train_bridge, lora=config.train_lora)
    extras = Extras.of(model, config)
    trained = nn.ModuleDict({"bridge": model.bridge, "llm": model.llm, **extras.modules()})
    trunk = model.trunk
    if config.checkpointing:
        recompute_activations(model.inner)
    if config.compile:
        for part in (*model.bridge.compiled_parts(), trunk):
            part.compile(dynamic=False)
    choose = _chooser(rows, features, config)

    def batch_at(step: int, part: int, parts: int) -> Batch:
        rng = np.random.default_rng([config.loop.seed, step])
        return make_batch(model, rows, features, choose(step), config, rng, part, parts)

    def loss(batch: Batch) -> dict[str, Tensor]:
        return connect_losses(model, trunk, batch, config, extras)

    return fit(
        name,
        trained,
        batch_at,
        config.loop,
        folder=folder,
        resume=resume,
        loss=loss,
        validate=validate,
        after_backward=extras.debias.after_backward if extras.debias else None,
    )


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What the further terms of a stage need in training only."""

    naming: Naming | None = None
    contrast: Contrast | None = None
    debias: Debias | None = None

    @classmethod
    def of(cls, model: AVQAModel, config: ConnectConfig) -> Extras:
        """Fresh ones."""
        torch.manual_seed(config.loop.seed)
        contrast, debias = config.contrast, config.debias
        return cls(
            naming=Naming() if config.naming or config.events else None,
            contrast=Contrast(contrast, width_in=model.config.bridge.width) if contrast else None,
            debias=Debias(model, model.trunk, debias, seed=config.loop.seed) if debias else None,
        )

    def modules(self) -> dict[str, nn.Module]:
        """Those with weights."""
        found = {"naming": self.naming, "contrast": self.contrast}
        return {name: module for name, module in found.items() if module is not None}


def choose_weights(model: AVQAModel, *, bridge: bool, lora: bool) -> None:
    """Say which weights learn; encoders and language model never do."""
    model.bridge.requires_grad_(bridge)
    for key, parameter in model.llm.named_parameters():
        parameter.requires_grad_(lora and "lora_" in key)


def _chooser(
    rows: Sequence[ClipRow], features: ClipFeatures, config: ConnectConfig
) -> Callable[[int], list[int]]:
    """Step to the clips of its batch."""
    order = {"batch": config.loop.batch, "seed": config.loop.seed}
    if not config.group_by_length:
        return lambda step: shuffled(len(rows), step=step, **order)
    costs = [
        features.timeline(n) * 8 + sum(len(q.question) + len(q.answer) for q in row.questions) // 4
        for n, row in enumerate(rows)
    ]
    return lambda step: grouped(costs, step=step, **order)


def connect_losses(
    model: AVQAModel, trunk: Any, batch: Batch, config: ConnectConfig, extras: Extras
) -> dict[str, Tensor]:
    """Next-token loss on record and answers, and whatever else the recipe has switched on."""
    found: dict[str, Tensor] = {}
    if extras.debias:
        found = extras.debias.scores(batch, lambda part: bridged(model, part)[0])
        batch = extras.debias.dropped(batch, found)
    embeds, keys, soft, exists, clues = bridged(model, batch)
    if extras.debias and batch.candidates is not None and batch.branches:
        tokens, fused_NK, gold_N = scored_loss(
            trunk, model.head, batch.packed, batch.candidates, embeds
        )
        terms = extras.debias.losses(fused_NK, gold_N, found)
    elif config.tokens:
        tokens, terms = packed_loss(trunk, model.head, batch.packed, embeds), {}
    else:
        tokens, terms = embeds.new_zeros(()), {}
    losses = {"loss": config.tokens * tokens * batch.weight, "tokens": tokens}
    has_clues = model.config.bridge.clues > 0
    if config.grounding and config.questions and has_clues:
        losses["grounding"] = grounding_loss(clues, batch)
        terms["grounding"] = config.grounding * losses["grounding"]
    if config.naming and extras.naming:
        losses["naming"] = extras.naming.of_timeline(model, keys, batch.events)
        terms["naming"] = config.naming * losses["naming"]
    if config.events and extras.naming and has_clues:
        each = len(batch.asked) // len(batch.slots)
        losses["events"] = extras.naming.of_events(model, soft[::each], exists[::each], batch.slots)
        terms["events"] = config.events * losses["events"]
    if extras.contrast:
        own = extras.contrast(keys, batch.sound, batch.picture)
        losses |= own
        terms["contrast"] = extras.contrast.total(own)
    for name, term in terms.items():
        losses["loss"] = losses["loss"] + term
        losses.setdefault(name, term)
    return losses


def bridged(model: AVQAModel, batch: Batch) -> tuple[Tensor, ClipKeys, Tensor, Tensor, Clues]:
    """Embeddings of a batch's sequences, and what the bridge made on the way to them."""
    keys = model.bridge(batch.sound, batch.picture, batch.seconds_B)
    soft, exists, clues = model.clues(keys, batch.words)
    return placed(model, batch, keys, soft, exists), keys, soft, exists, clues


def placed(model: AVQAModel, batch: Batch, keys: ClipKeys, soft: Tensor, exists: Tensor) -> Tensor:
    """Embeddings of the packed sequences: the clues of each clip's record and questions in turn."""
    clips = len(batch.seconds_B)
    used = torch.tensor([q is not None for q in batch.asked], device=soft.device).view(clips, -1)
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
    total, count = clues.sound_weights_BN.new_zeros(()), 0
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
