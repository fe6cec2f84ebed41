"""Debiasing a stage: passes over parts of the input, and what is made of them.

For clips that have both modalities, each question's candidate answers are scored four times: with
everything (*fused*, in the pass that is learned from), with the sound alone, with the picture
alone, and with nothing but the question. A record says what was heard and seen, so each branch
has the record that is possible with what it is given.

Legend: B clips, N questions with candidates, K candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from avqa_llm.errors import RecipeError
from avqa_llm.model import AVQAModel
from avqa_llm.training.balance import (
    OGMConfig,
    OPMConfig,
    branches,
    discrepancy,
    modulate,
    ogm_scales,
    opm_drop,
)
from avqa_llm.training.candidates import Options, options, scores
from avqa_llm.training.debias import COCAConfig, MAVENConfig, MCCDConfig, coca, maven, mccd
from avqa_llm.training.layout import Batch, Layout
from avqa_llm.training.packing import block_logps

BRANCHES = {"sound": (False, True), "picture": (True, False), "question": (True, True)}
"""What each branch is given, as (without sound, without picture)."""


@dataclass(frozen=True, kw_only=True)
class DebiasConfig:
    """What is done against answers that rest on one modality, or on none. Each may be absent."""

    mccd: MCCDConfig | None = None
    maven: MAVENConfig | None = None
    coca: COCAConfig | None = None
    opm: OPMConfig | None = None
    ogm: OGMConfig | None = None
    candidates: Literal["all", "family"] = "family"
    """Answers that are compared: all 42 labels, or those that are of the gold one's kind."""

    def __post_init__(self) -> None:
        if not self.needed:
            raise RecipeError("debias: name at least one of mccd, maven, coca, opm, ogm")
        if self.opm and self.compares:
            raise RecipeError(
                "debias: opm takes modalities away from the very questions that mccd, maven and"
                " coca compare; use it without them"
            )

    @property
    def needed(self) -> tuple[str, ...]:
        """The branches that have to be passed through."""
        if self.compares:
            return tuple(BRANCHES)
        return ("sound", "picture") if self.opm or self.ogm else ()

    @property
    def compares(self) -> bool:
        """Whether answers to the whole input are compared with those of the branches."""
        return bool(self.mccd or self.maven or self.coca)

    @property
    def learns(self) -> bool:
        """Whether gradients go into the branches."""
        return self.mccd is not None or self.maven is not None


def offered_to(model: AVQAModel, layout: Layout, config: DebiasConfig) -> list[Options | None]:
    """Candidates of each question of a clip; none for a clip that lacks a modality."""
    if layout.deaf or layout.blind:
        return [None] * len(layout.asked)
    return [
        options(
            model.prompt,
            q.answer if q.choices else q.label or q.answer,
            q.choices,
            kind=config.candidates,
        )
        for q in layout.asked
    ]


def branch_scores(model: AVQAModel, trunk: Any, batch: Batch, embed: Callable) -> Tensor:
    """Log-likelihoods (N, K) of the candidates in one branch."""
    assert batch.candidates is not None
    logps_BK = block_logps(trunk, model.head, batch.packed, embed(batch))
    return scores(logps_BK, batch.candidates)[0]


class Debias:
    """The terms of a stage; holds what the backward pass has to know of the forward pass."""

    def __init__(self, model: AVQAModel, trunk: Any, config: DebiasConfig, *, seed: int) -> None:
        self.model, self.trunk, self.config = model, trunk, config
        self.seed = seed
        self.parts = branches(model.bridge) if config.ogm else {}
        self.ratios: list[Tensor] = []

    def scores(self, batch: Batch, embed: Callable) -> dict[str, Tensor]:
        """Of every branch that is needed."""
        with torch.set_grad_enabled(self.config.learns and torch.is_grad_enabled()):
            found = {
                name: branch_scores(self.model, self.trunk, branch, embed)
                for name, branch in batch.branches.items()
            }
        if batch.candidates is not None and len(batch.candidates.gold_N):
            _, rho = discrepancy(found["sound"], found["picture"], batch.candidates.gold_N)
            self.ratios.append(rho)
        return found

    def dropped(self, batch: Batch, found: dict[str, Tensor]) -> Batch:
        """OPM: the batch without the dominant modality of some of its clips."""
        fused = batch.candidates
        if (
            self.config.opm is None
            or batch.remake is None
            or fused is None
            or not len(fused.gold_N)
        ):
            return batch
        rho_N, _ = discrepancy(found["sound"], found["picture"], fused.gold_N)
        rho_B = clip_means(rho_N.log(), fused.rows_N, len(batch.seconds_B)).exp().cpu()
        deaf_B, blind_B = opm_drop(rho_B, self.config.opm)
        return batch.remake(deaf_B.tolist(), blind_B.tolist()).to(batch.seconds_B.device)

    def losses(
        self, fused_NK: Tensor, gold_N: Tensor, found: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The terms that compare, weighted."""
        config = self.config
        terms: dict[str, Tensor] = {}
        if not (len(gold_N) and config.compares):
            return terms
        alone = (found.get("question"), found["sound"], found["picture"])
        if config.mccd:
            terms["mccd"] = mccd(fused_NK, *_three(alone), config.mccd)
        if config.maven:
            terms["maven"] = maven(fused_NK, *_three(alone), config.maven)
        if config.coca:
            terms["coca"] = coca(fused_NK, *_three(alone), gold_N, config.coca)
        return terms

    def after_backward(self, step: int) -> None:
        """OGM: slow down the branch of the dominant modality."""
        ratios, self.ratios = self.ratios, []
        if self.config.ogm is None:
            return
        logs = torch.tensor([sum(float(r.log()) for r in ratios), float(len(ratios))])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            logs = logs.to(self.model.device)  # all processes take part, also those without any
            torch.distributed.all_reduce(logs)
        if not logs[1]:
            return
        sound, picture = ogm_scales((logs[0] / logs[1]).exp(), self.config.ogm)
        scales = {"sound": sound, "picture": picture}
        draws = torch.Generator().manual_seed(self.seed * 1_000_003 + step)  # in all processes
        modulate(self.parts, scales, noise=self.config.ogm.noise, generator=draws)


def _three(found: Sequence[Tensor | None]) -> tuple[Tensor, Tensor, Tensor]:
    question, sound, picture = found
    assert question is not None and sound is not None and picture is not None
    return question, sound, picture


def clip_means(values_N: Tensor, clips_N: Tensor, clips: int) -> Tensor:
    """Mean of each clip's values (B,); 0 where it has none."""
    sums = values_N.new_zeros(clips).index_add_(0, clips_N, values_N)
    counts = values_N.new_zeros(clips).index_add_(0, clips_N, torch.ones_like(values_N))
    return sums / counts.clamp(min=1)
