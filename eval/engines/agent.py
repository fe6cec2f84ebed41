"""The agent that plans by rules, around a model of ours: what it adds, and what it costs.

The same decisions as `avqa agent`, without its trace. What rules leave to the model is asked in
one batch a clip. Answers that were looked up or measured have no probability, and by that are
told from the model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from avqa_llm.agent.bench import Bench
from avqa_llm.agent.rules import answer_of, decide
from avqa_llm.answer import Answer
from avqa_llm.media import Clip
from avqa_llm.session import finished
from eval.engines import Asked
from eval.engines.local import Local


@dataclass(frozen=True, kw_only=True)
class RulesAgent(Local):
    """`Local`, but a planner by rules looks answers up and measures before it asks the model."""

    def answer(
        self, clips: Sequence[Clip], asked: Sequence[Asked], *, evidence: bool = False
    ) -> list[Answer]:
        """Answer all questions, each on its own, in order."""
        answers: dict[int, Answer] = {}
        for number, clip in enumerate(clips):
            mine = [n for n, one in enumerate(asked) if one.clip == number]
            if mine:
                found = self._about(clip, [asked[n] for n in mine], evidence=evidence)
                answers.update(zip(mine, found, strict=True))
        return [answers[n] for n in range(len(asked))]

    def _about(self, clip: Clip, asked: Sequence[Asked], *, evidence: bool) -> list[Answer]:
        bench = Bench(self.engine, clip)
        answers: list[Answer | None] = [_looked_up(bench, one) for one in asked]
        left = [n for n, answer in enumerate(answers) if answer is None]
        said = bench.engine.ask(
            bench.session.reading,
            [(0, asked[n].question) for n in left],
            choices=[asked[n].choices for n in left],
            evidence=evidence,
            open_ended=self.mode == "generate",
        )
        for n, answer in zip(left, said, strict=True):
            answers[n] = finished(answer, bench.session.warnings, {})
        return [answer for answer in answers if answer is not None]

    def describe(self) -> dict[str, Any]:
        """What answers, for the record of a run."""
        return {**super().describe(), "model": f"agent:{self.model}", "planner": "rules"}


def _looked_up(bench: Bench, asked: Asked) -> Answer | None:
    """An answer without asking; None where the model has to be asked, or gave other choices."""
    decided, _ = decide(bench, asked.question)
    if decided is None:
        return None
    answer = answer_of(bench, decided)
    is_choice = not asked.choices or answer.answer in asked.choices
    return answer if is_choice else None
