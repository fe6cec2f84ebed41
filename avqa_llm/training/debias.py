"""Debiasing terms on the likelihoods of candidate answers: MCCD, MAVEN, COCA.

All compare the answer to the whole input (*fused*) with answers to a part of it: the question
alone, sound or picture with it or alone. The branches are passes of the same network over inputs
from which something was taken away (`candidates.only_scored`: no gold text in any of them), where
the papers have heads of their own. Logits are log-likelihoods of the same candidates in every
branch; only what they say about the choice *among* the candidates counts, so each branch is
normalised over them first (`log_softmax`): an offset of all logits changes no answer, and must
not pass for a distance.

Everywhere: means over questions, so that parts of a batch add up to the whole of it; -inf in
any branch takes a candidate out of all of them; nothing grows beyond the bound that the
configuration sets, and gradients are finite where branches coincide.

Legend: N questions, K candidates, S shortcuts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

LOWEST = torch.finfo(torch.float32).min
"""In the place of -inf, whose differences are NaN."""


@dataclass(frozen=True, kw_only=True)
class MCCDConfig:
    """Weights of `mccd`."""

    distance: float = 0.01
    """Of the mean of the three inverse distances."""
    cycle: float = 1 / 9
    """Of the sum of the three divergences."""
    floor: float = 0.1
    """A distance never counts as less than this: no inverse is above 1 / `floor`."""
    detach: bool = False
    """Push only the fused answer away from the others, and not these away from it."""


@dataclass(frozen=True, kw_only=True)
class MAVENConfig:
    """Weights of `maven`."""

    weight: float = 0.001
    """Of the sum of the three inverse divergences."""
    cycle: float = 1 / 9
    """Of the sum of the three divergences between the branches."""
    floor: float = 0.1
    """Added to a divergence before it is inverted: no inverse is above 1 / `floor`."""
    detach: bool = False
    """As in `MCCDConfig`."""


@dataclass(frozen=True, kw_only=True)
class COCAConfig:
    """Weights of `coca`."""

    weight: float = 1.0
    """Of the whole term."""
    strength: float = 1.0
    """Of a shortcut that is sure of its answer, if it is the only one that is."""
    floor: float = 1e-3
    """Least probability that a shortcut counts as giving to a candidate."""


def mccd(
    fused_NK: Tensor,
    question_NK: Tensor,
    sound_NK: Tensor,
    picture_NK: Tensor,
    config: MCCDConfig,
) -> Tensor:
    """Multifaceted cycle collaborative debiasing (Ma et al., NeurIPS 2024, section 4).

        distance · mean_n ⅓ Σ_m 1 / √(‖z_f − z_m‖² + floor²)
        + cycle · mean_n [KL(p_q‖p_a) + KL(p_v‖p_q) + KL(p_a‖p_v)]

    with m over question q, sound a, picture v. The first part keeps the fused answer away from
    the answers to single inputs, the second one makes these alike. The cross-entropy of the
    fused answer is not in here; the branches have none. Deviations from the released code: it
    adds 1e-5 to the distance, whose inverse explodes when branches coincide (`floor` bounds it,
    smoothly, so that branches a little apart still part); it inverts the mean distance of a
    batch, here each question has its own; z is normalised (see above).

    Gradients: the distances act on both sides as in the paper, with `detach` on the fused side
    alone; the cycle acts on the three branches alone. With shared weights the push on the
    branches also costs what sound or picture alone can rightly answer.

    Args:
        fused_NK: log-likelihoods of the candidates; -inf where there is none.
        question_NK: the same for the question alone, `sound_NK`, `picture_NK` for a modality.
        sound_NK: see above.
        picture_NK: see above.
        config: weights.

    Returns:
        A scalar; 0 without questions.
    """
    (fused, *branches), there_NK = _normalised(fused_NK, question_NK, sound_NK, picture_NK)
    pull = _cycle(branches, there_NK)
    push = fused.new_zeros(len(fused))
    for branch in branches:
        gap_NK = fused - (branch.detach() if config.detach else branch)
        push = push + torch.rsqrt(gap_NK.square().sum(-1) + config.floor**2) / 3
    return _mean(config.distance * push + config.cycle * pull)


def maven(
    fused_NK: Tensor,
    question_NK: Tensor,
    sound_NK: Tensor,
    picture_NK: Tensor,
    config: MAVENConfig,
) -> Tensor:
    """The same idea for a generative model (Ma et al., arXiv 2504.00487, MAVEN).

        weight · mean_n Σ_m 1 / (KL(p_f‖p_m) + floor)  +  cycle · (as in `mccd`)

    Deviations from the released code: it averages logits over prompt and padding, here they
    are likelihoods of answers only; its text-only branch reads the gold answer, here no branch
    does; its tiny constant in the denominator is `floor`. The weight of the cycle is that of
    `mccd`. Gradients and arguments: as in `mccd`.
    """
    (fused, *branches), there_NK = _normalised(fused_NK, question_NK, sound_NK, picture_NK)
    pull = _cycle(branches, there_NK)
    push = fused.new_zeros(len(fused))
    for branch in branches:
        other = branch.detach() if config.detach else branch
        push = push + 1 / (_divergence(fused, other, there_NK) + config.floor)
    return _mean(config.weight * push + config.cycle * pull)


def coca(
    fused_NK: Tensor,
    question_NK: Tensor,
    question_sound_NK: Tensor,
    question_picture_NK: Tensor,
    gold_N: Tensor,
    config: COCAConfig,
) -> Tensor:
    """Counterfactual debiasing after COCA (Lao et al., AAAI 2023: BCR and MCD).

    The paper names three shortcuts to an answer: the question, the question with the sound,
    the question with the picture. What is left of an answer when the rest is blanked is the bias
    b_s of shortcut s, and each sample is freed most of the one that it suffers from most:

        u_s = 1 − H(b_s) / log K                  how sure the shortcut is, 0 to 1
        w_s = strength · u_s · u_s / Σ_t u_t      concentrates on the surest; Σ_s w_s ≤ strength
        loss = weight · mean_n −log softmax(log p_f + Σ_s w_s log b_s)[gold]

    The fused answer learns what it has to add to the shortcuts for the gold answer to come out.
    Where a sure shortcut is right that is little, and the sample's gradient is small; where it is
    wrong the fused answer has to outvote it; where no shortcut is sure this is the plain
    cross-entropy. In use p_f answers alone, which is the factual answer without the bias.

    Gradients: into the fused answer only. The shortcuts are constants: were they not, the loss
    would be lowered by making a shortcut better at the gold answer. (Subtracting log b_s in
    training instead would make samples with a shortcut count more.) The form is ours: from the
    paper are the shortcuts, the counterfactual inputs and the weights by entropy, not this
    equation. The term is a cross-entropy of its own, meant in the place of that on the same
    answers; beside an undiminished one it only shifts the balance.

    Args:
        fused_NK: log-likelihoods of the candidates; -inf where there is none.
        question_NK: the same with sound and picture blanked.
        question_sound_NK: with the picture blanked.
        question_picture_NK: with the sound blanked.
        gold_N: place of the right candidate.
        config: weights.

    Returns:
        A scalar; 0 without questions.
    """
    shortcuts = (question_NK, question_sound_NK, question_picture_NK)
    (fused, *biases), there_NK = _normalised(fused_NK, *(s.detach() for s in shortcuts))
    bias_SNK = torch.stack(biases)
    weights_SN = coca_weights(bias_SNK, there_NK, config)
    known_SNK = bias_SNK.clamp(min=math.log(config.floor))
    joined_NK = fused + (weights_SN[..., None] * known_SNK).sum(0)
    joined_NK = joined_NK.masked_fill(~there_NK, LOWEST)
    return config.weight * _mean(functional.cross_entropy(joined_NK, gold_N, reduction="none"))


def coca_weights(bias_SNK: Tensor, there_NK: Tensor, config: COCAConfig) -> Tensor:
    """How much each shortcut of each question is taken into account (S, N), see `coca`.

    `bias_SNK` are log-probabilities, with 0 where `there_NK` is False.
    """
    entropy_SN = -(bias_SNK.exp() * bias_SNK).sum(-1)
    most_N = there_NK.sum(-1).clamp(min=2).log()
    sure_SN = (1 - entropy_SN / most_N).clamp(0, 1) * (there_NK.sum(-1) > 1)
    return config.strength * sure_SN.square() / sure_SN.sum(0).clamp(min=1e-6)


def _normalised(*branches_NK: Tensor) -> tuple[list[Tensor], Tensor]:
    """Log-probabilities among the candidates that all branches have, 0 elsewhere; which those are.

    Everything in float32, whatever the network runs in.
    """
    there_NK = torch.stack([branch.isfinite() for branch in branches_NK]).all(0)
    logps = []
    for branch in branches_NK:
        known_NK = branch.float().masked_fill(~there_NK, LOWEST).log_softmax(-1)
        logps.append(known_NK.masked_fill(~there_NK, 0.0))
    return logps, there_NK


def _divergence(p_NK: Tensor, q_NK: Tensor, there_NK: Tensor) -> Tensor:
    """KL(p‖q) of log-probabilities, (N,); rounding never makes it negative."""
    gap_NK = (p_NK.exp() * (p_NK - q_NK)).masked_fill(~there_NK, 0.0)
    return gap_NK.sum(-1).clamp(min=0)


def _cycle(branches: list[Tensor], there_NK: Tensor) -> Tensor:
    """Sum (N,) of the divergences around the circle of question, sound and picture."""
    q_NK, a_NK, v_NK = branches
    return (
        _divergence(q_NK, a_NK, there_NK)
        + _divergence(v_NK, q_NK, there_NK)
        + _divergence(a_NK, v_NK, there_NK)
    )


def _mean(values_N: Tensor) -> Tensor:
    """Mean; 0 of nothing, with a gradient of 0."""
    return values_N.sum() / max(len(values_N), 1)
