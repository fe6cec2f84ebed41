"""Names of models, and where they lie."""

from __future__ import annotations

from pathlib import Path

from avqa_llm.errors import CheckpointError

CHECKOUT = Path(__file__).resolve().parent.parent
PRESETS: dict[str, Path] = {"tiny": CHECKOUT / "adapters" / "tiny"}
"""Models that can be asked by name. Every other model is a directory."""


def find_model(model: str | Path) -> Path:
    """The directory of a preset or of a model of one's own.

    Raises:
        CheckpointError: there is none; names what there is.
    """
    folder = PRESETS.get(str(model), Path(model))
    if not folder.is_dir() and str(model) in PRESETS:
        raise CheckpointError(
            f"the weights of {str(model)!r} are not in {folder}; train them with"
            f" `avqa train adapters/recipes/{model}.yaml`, or name a model directory"
        )
    if not folder.is_dir():
        raise CheckpointError(
            f"model {str(model)!r} is neither a preset ({', '.join(PRESETS)}) nor a directory;"
            " train one with `avqa train RECIPE`"
        )
    return folder
