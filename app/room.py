"""What the page remembers of one visitor: clips and turns. Gone with the visit."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field, replace

from app.clips import Media
from avqa_llm.answer import Answer
from avqa_llm.media.changes import Cut
from avqa_llm.prompt import Turn as Said
from avqa_llm.serving.contract import Ask, Attached


@dataclass(frozen=True, kw_only=True)
class Step:
    """Something that was done on the way to an answer, for a person to read."""

    kind: str
    """`measured`, `model`, `transcript` or `plan`."""
    tool: str
    result: str


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A question that was put, and what came of it."""

    question: str
    """As it was typed."""
    asked: str = ""
    """As the model read it."""
    media: Media | None = None
    model: str = ""
    cut: Cut = Cut()
    before: tuple[Said, ...] = ()
    """The conversation that the model was given."""
    open_ended: bool = False
    answer: Answer | None = None
    """None: there was none, and `said` tells why."""
    said: str = ""
    steps: tuple[Step, ...] = ()
    seconds: float = 0.0
    """From the question to the answer."""
    at: float = field(default_factory=time.time)
    """Unix seconds."""

    def ask(self, cut: Cut | None = None) -> Ask:
        """The question for a service; `cut`: with another change of the clip."""
        cut = self.cut if cut is None else cut
        media = () if self.media is None else (Attached(path=self.media.path),)
        return Ask(
            model=self.model,
            media=media,
            question=self.asked,
            history=self.before,
            open_ended=self.open_ended,
            mute=not cut.sound,
            blank=not cut.picture,
            cut=replace(cut, sound=True, picture=True),
        )


class Room:
    """The conversation of one visitor. Only its own events touch it, one after another."""

    MOST_SAID = 6
    """Turns about the same clip that a model is reminded of."""

    def __init__(self) -> None:
        self._id = ""
        self.media: list[Media] = []
        self.turns: list[Turn] = []
        self.drafted = ""
        """The file that lies ready beside the question, as the visitor's side names it."""

    @property
    def id(self) -> str:
        """Of this visit, and of nobody in person; made when it is first wanted."""
        self._id = self._id or uuid.uuid4().hex
        return self._id

    def before(self, media: Media, model: str) -> tuple[Said, ...]:
        """What was said about this clip, by this model: answers of others would only mislead."""
        said = [
            Said(question=turn.asked, answer=turn.answer.answer)
            for turn in self.turns
            if turn.answer is not None and turn.media == media and turn.model == model
        ]
        return tuple(said[-self.MOST_SAID :])

    def back_to(self, count: int) -> None:
        """Only the first turns stand: later ones were undone, edited or are asked again."""
        del self.turns[count:]

    @property
    def latest(self) -> Turn | None:
        """The last turn with an answer."""
        return next((turn for turn in reversed(self.turns) if turn.answer is not None), None)

    def clear(self) -> None:
        """Begin anew; files go when their time is over."""
        self.media.clear()
        self.turns.clear()
