"""A conversation about one clip."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from avqa_llm.answer import Answer
from avqa_llm.media import Clip
from avqa_llm.model import ClipTokens, World
from avqa_llm.prompt import Turn
from avqa_llm.world import unlike_world

if TYPE_CHECKING:
    from avqa_llm.engine import Engine


class Session:
    """A conversation about one clip, which is encoded and read once."""

    def __init__(
        self, engine: Engine, clip: Clip, *, times: dict[str, float] | None = None
    ) -> None:
        """`times`: seconds already spent on this clip, for the first answer's timings."""
        started = time.perf_counter()
        self.engine = engine
        self.tokens = engine.encode(clip)
        self.times = {**(times or {}), "encode": time.perf_counter() - started}
        self.reading = engine.digest([self.tokens])
        self.turns: list[Turn] = []
        self.warnings = warnings_about(clip, self.tokens, engine.model.config.world)

    def ask(self, question: str, *, open_ended: bool = False, remember: bool = True) -> Answer:
        """Answer one question, with its evidence, after what was said before."""
        (answer,) = self.answer(
            [question], history=self.turns, evidence=True, open_ended=open_ended
        )
        if remember:
            self.turns.append(Turn(question=question, answer=answer.answer))
        return answer

    def answer(
        self,
        questions: Sequence[str],
        *,
        history: Sequence[Turn] = (),
        evidence: bool = False,
        open_ended: bool = False,
    ) -> list[Answer]:
        """Answer questions, each by itself after the same history."""
        rows = [(0, question) for question in questions]
        answers = self.engine.ask(
            self.reading, rows, history=history, evidence=evidence, open_ended=open_ended
        )
        times, self.times = self.times, {}
        return [finished(answer, self.warnings, times) for answer in answers]


def warnings_about(clip: Clip, tokens: ClipTokens, world: World) -> tuple[str, ...]:
    """What a careful reader of answers about this clip has to know."""
    found = []
    if not clip.has_sound:
        found.append("There was no sound to hear: the answer rests on the picture alone.")
    elif clip.is_silent:
        found.append("The sound track is silent.")
    if not clip.has_picture:
        found.append("There was no picture to see: the answer rests on the sound alone.")
    return (*found, *unlike_world(world, tokens, merges=isinstance(tokens, ClipTokens)))


def finished(answer: Answer, warnings: tuple[str, ...], timing: dict[str, float]) -> Answer:
    """The answer with warnings, and with the times that were spent before it."""
    times = {key: round(value, 4) for key, value in {**timing, **answer.timing_s}.items()}
    return replace(answer, warnings=warnings, timing_s=times)
