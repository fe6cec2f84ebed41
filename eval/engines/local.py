"""A model of ours in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avqa_llm.answer import Answer
from avqa_llm.media import Clip
from eval.engines import Asked
from eval.samples import RunError

if TYPE_CHECKING:
    from avqa_llm.engine import LocalEngine

MODES = ("rank", "generate")
"""`rank`: the closed answers (or the question's choices) by likelihood. `generate`: free text,
which a scorer has to make an answer of; choices are not shown to the model."""


@dataclass(frozen=True, kw_only=True)
class Local:
    """An engine around a preset or a model directory."""

    engine: LocalEngine
    model: str
    """As it was asked for."""
    mode: str = "rank"

    @classmethod
    def load(cls, model: str, *, mode: str = "rank", features: str | None = None) -> Local:
        """Load a model; `features` is a folder of `avqa features`.

        Raises:
            RunError: there is no such mode.
            CheckpointError: there is no such model, or it is incomplete.
        """
        if mode not in MODES:
            raise RunError(f"mode {mode!r} is unknown; choose one of {', '.join(MODES)}")
        from avqa_llm.devices import prepare_cpu
        from avqa_llm.engine import load_engine

        prepare_cpu()
        store = Path(features) if features else None
        return cls(engine=load_engine(model, features=store), model=model, mode=mode)

    def read(self, path: Path) -> Clip:
        """Decode a file the way the model wants it. Raises MediaError."""
        return self.engine.read(path)

    def answer(
        self, clips: Sequence[Clip], asked: Sequence[Asked], *, evidence: bool = False
    ) -> list[Answer]:
        """Answer all questions, each on its own, in order; clips are read as one batch."""
        return self.engine.answer_many(
            clips,
            [(one.clip, one.question) for one in asked],
            choices=[one.choices for one in asked],
            evidence=evidence,
            open_ended=self.mode == "generate",
        )

    def describe(self) -> dict[str, Any]:
        """What answers, for the record of a run."""
        import torch

        return {"model": self.model, "mode": self.mode, "threads": torch.get_num_threads()}
