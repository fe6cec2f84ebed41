"""Balance between sound and picture: OPM and OGM. (Modality dropout: `missing` of a stage.)

Where one modality answers more of the questions, the other one stops learning. *OPM* takes the
stronger one away from some samples in the forward pass, *OGM* slows it down in the backward pass.
Both go by the discrepancy of the modalities: how probable each of them alone finds the gold
answers. Encoders are frozen here, so what is slowed down are the bridge's branches.

Legend: N samples, K candidate answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avqa_llm.errors import RecipeError

MODALITIES = ("sound", "picture")
LIMIT = 100.0
"""No discrepancy is more than this, or less than its inverse."""


@dataclass(frozen=True, kw_only=True)
class OPMConfig:
    """How often the dominant modality is dropped."""

    base: float = 0.5
    """Probability where it hardly dominates."""
    strength: float = 0.5
    """How much that grows as it dominates more: up to base · (1 + strength)."""

    def __post_init__(self) -> None:
        if min(self.base, self.strength) < 0 or self.base * (1 + self.strength) > 1:
            raise RecipeError(
                f"OPM: base {self.base} * (1 + strength {self.strength}) must lie in 0..1,"
                " it is a probability: lower one of them"
            )


@dataclass(frozen=True, kw_only=True)
class OGMConfig:
    """How much the dominant modality is slowed down."""

    alpha: float = 0.5
    """Of 1 − tanh(α ρ); the paper uses 0.1 to 0.8."""
    noise: float = 1.0
    """Standard deviation of the noise, in those of each parameter's gradient; 0: none."""

    def __post_init__(self) -> None:
        if min(self.alpha, self.noise) < 0:
            raise RecipeError(
                f"OGM: alpha {self.alpha} and noise {self.noise} must not be negative"
            )


@torch.no_grad()
def discrepancy(sound_NK: Tensor, picture_NK: Tensor, gold_N: Tensor) -> tuple[Tensor, Tensor]:
    """Ratio of what each modality alone knows (Peng et al., CVPR 2022, section 3.2).

        ρ = Σ_n softmax(sound_n)[gold_n] / Σ_n softmax(picture_n)[gold_n]

    The paper halves a linear head into two; a language model has no such halves, so the logits
    are those of a pass with the sound alone and of one with the picture alone. Constants for all
    that follows: no gradients.

    Args:
        sound_NK: log-likelihoods of the candidates given question and sound; -inf where a
            question has fewer.
        picture_NK: the same given question and picture.
        gold_N: place of the right candidate.

    Returns:
        The ratio of each sample (N,) and that of the batch (); above 1 the sound dominates.
        Samples without either modality are for the caller to leave out. Without samples: 1.
    """
    heard_N, seen_N = (
        logits.float().softmax(-1).gather(1, gold_N[:, None])[:, 0]
        for logits in (sound_NK, picture_NK)
    )
    return _ratio(heard_N, seen_N), _ratio(heard_N.sum(), seen_N.sum())


def opm_drop(
    rho_N: Tensor, config: OPMConfig, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """On-the-fly prediction modulation (Wei et al., T-PAMI 2024, section on OPM).

        q_sound = base · (1 + strength · tanh(ρ − 1)) if ρ > 1, else 0; q_picture with 1 / ρ

    Deviations: the paper takes the batch's ratio for all samples (give it here repeated N times
    for that); its code leaves three batches in ten alone, which `base` can say; it divides
    what is left by the share that is kept, as its features are summed, while here a modality
    that is gone is not attended to. As only the dominant one is dropped, no sample loses both.

    Returns:
        Which samples lose their sound and which their picture: bool (N,), on `rho_N`'s device.
    """
    fate_N = _uniform(len(rho_N), generator).to(rho_N.device)
    sound, picture = (
        (ratio > 1) & (fate_N < config.base * (1 + config.strength * (ratio - 1).tanh()))
        for ratio in (rho_N, 1 / rho_N)
    )
    return sound, picture


def ogm_scales(rho: Tensor | float, config: OGMConfig) -> tuple[float, float]:
    """Factors for the gradients of sound and picture (Peng et al., CVPR 2022, equation 10).

    k_sound = 1 − tanh(α ρ) if ρ > 1, else 1; k_picture with 1 / ρ
    """
    ratio = torch.as_tensor(rho, dtype=torch.float64)
    sound, picture = (
        float(1 - torch.tanh(config.alpha * r)) if r > 1 else 1.0 for r in (ratio, 1 / ratio)
    )
    return sound, picture


@torch.no_grad()
def modulate(
    parameters: Mapping[str, Iterable[nn.Parameter]],
    scales: Mapping[str, float],
    *,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> None:
    """Change gradients in place (Peng et al., CVPR 2022, sections 3.2 and 3.3: OGM-GE).

        g ← k · g + ε, ε from N(0, (noise · σ)²), σ the deviation of the entries of g before

    The noise makes up for what slower learning takes from generalisation; it is added to both
    branches, as in the paper. To be called between the backward pass (after gradients were
    unscaled and summed over processes) and clipping. Where several processes train, `generator`
    needs the same seed in all of them, or their weights drift apart.

    Args:
        parameters: those of each branch, see `branches`; a parameter without a gradient is left.
        scales: the factor k of each branch.
        noise: in deviations of each parameter's own gradient.
        generator: where the noise comes from; none: torch's own.
    """
    for branch, own in parameters.items():
        for parameter in own:
            grad = parameter.grad
            if grad is None:
                continue
            spread = grad.float().std(unbiased=False)
            grad.mul_(scales[branch])
            if noise:
                grad.add_(
                    (_normal(grad.shape, generator).to(grad.device) * spread * noise).to(grad)
                )


def branches(bridge: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The parameters of a bridge that serve one modality: those whose name says so.

    The rule: one of the words of the name, between dots and underscores, is `sound` or
    `picture` (`read_sound.project.weight`, `out.picture_clues.bias`), and only one of the two.
    What both share (queries and words of the aggregator) belongs to neither.

    Raises:
        RecipeError: a modality has no parameters of its own in this bridge.
    """
    found: dict[str, list[nn.Parameter]] = {modality: [] for modality in MODALITIES}
    for name, parameter in bridge.named_parameters():
        said = set(re.split(r"[._]", name)) & set(MODALITIES)
        if len(said) == 1:
            found[said.pop()].append(parameter)
    for modality, own in found.items():
        if not own:
            raise RecipeError(
                f"OGM: {type(bridge).__name__} has no parameters with {modality!r} in their name,"
                " so that modality cannot be slowed down: choose another bridge, or OPM"
            )
    return found


def _ratio(heard: Tensor, seen: Tensor) -> Tensor:
    tiny = torch.finfo(torch.float32).tiny
    return ((heard + tiny) / (seen + tiny)).clamp(1 / LIMIT, LIMIT)


def _uniform(n: int, generator: torch.Generator | None) -> Tensor:
    device = generator.device if generator else None
    return torch.rand(n, generator=generator, device=device)


def _normal(shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    device = generator.device if generator else None
    return torch.randn(tuple(shape), generator=generator, device=device)
