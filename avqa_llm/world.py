"""Whether a clip looks and sounds like what a model was trained on.

A small model answers about anything with the same confidence. So the means and deviations of
the encoder features over the training clips are kept with the model, and a clip that lies
further off than (nearly) all of them is answered with a warning. How far a clip lies along the
few axes that training clips differ most in does not count: there any clip may lie.

Legend: N tokens, D features, A axes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avqa_llm.clock import pace_of

if TYPE_CHECKING:
    from avqa_llm.model import ClipTokens, World

AXES, CLIPS_AN_AXIS = 4, 50
"""Axes at most, and the clips that it takes to tell one."""


def summary(values_ND: Tensor) -> Tensor:
    """A clip's features in one vector (2 D): means and deviations over its tokens."""
    values = values_ND.float()
    return torch.cat([values.mean(0), values.std(0, unbiased=False)])


def distance(vector: Tensor, mean: Tensor, std: Tensor, axes_AD: Tensor) -> float:
    """Root mean square of the standardised differences (2 D), less what lies along the axes."""
    off = (vector - mean) / std
    return float((off - axes_AD.T @ (axes_AD @ off)).square().mean().sqrt())


def measure(clips: Iterable[Tensor], *, quantile: float = 0.999) -> dict[str, list[float]]:
    """Statistics of one modality over training clips (each N, D): mean, std, axes and limit."""
    vectors = torch.stack([summary(clip) for clip in clips])
    mean, std = vectors.mean(0), vectors.std(0).clamp(min=1e-4)
    found = torch.linalg.svd((vectors - mean) / std, full_matrices=False)[2]
    axes = found[: min(AXES, len(vectors) // CLIPS_AN_AXIS)]
    distances = torch.tensor([distance(vector, mean, std, axes) for vector in vectors])
    limit = float(distances.quantile(quantile)) * 1.1
    return {
        "mean": [round(v, 5) for v in mean.tolist()],
        "std": [round(v, 5) for v in std.tolist()],
        "axes": [round(v, 4) for v in axes.flatten().tolist()],
        "limit": [round(limit, 4)],
    }


def unlike_world(world: World, tokens: ClipTokens, *, merges: bool = True) -> list[str]:
    """Sentences about how a clip differs from the model's world; empty where it does not.

    `merges`: whether the engine shows the model long clips faster, as `avqa_llm.clock` does.
    """
    found = []
    for name, part in (("picture", tokens.picture), ("sound", tokens.sound)):
        if not part.n or f"{name}_mean" not in world.statistics:
            continue
        mean, std, limit, axes = (
            torch.tensor(world.statistics.get(f"{name}_{key}", []))
            for key in ("mean", "std", "limit", "axes")
        )
        far = distance(summary(part.values_ND), mean, std, axes.view(-1, len(mean)))
        if far > float(limit):
            found.append(
                f"The {name} is unlike anything in {world.name}, the world this model was trained"
                f" on (distance {far:.2f}, known up to {float(limit):.2f}): do not rely on the"
                " answer."
            )
    if (pace := pace_of(tokens.seconds, world.longest_s)) > 1:
        found.append(
            f"The clip lasts {tokens.seconds:.1f} s; this model knows clips of up to"
            f" {world.longest_s:g} s."
        )
        if merges:
            found[-1] = found[-1][:-1] + (
                f", so it was shown this one {pace:.2f} times as fast, neighbouring moments merged:"
                f" times in its record and steps count {pace:.2f} times as long."
            )
    return found
