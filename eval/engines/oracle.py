"""An engine that answers from the truth of a Bandstand set: what a perfect model would score.

Its rules are its own. They work from a template, its slots and a row of `truth.json` alone, and
share no code with `instruct_data.bandstand.questions`, which made the gold answers: that it agrees
with all of them says that both read the questions alike. It never sees a gold answer.

It keeps to what a question says. "The violin" is the only one, or there is no answer; where a
question can be read in two ways, both must come to the same. What needs a sound or a picture
that is not there it does not know, so that the controls of a run hold for it too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avqa_llm.answer import Answer, Consumed
from avqa_llm.media import Clip, probe
from eval.benchmarks.base import QuestionSet
from eval.engines import Asked
from instruct_data.templates import TEMPLATES

UNKNOWN = "I do not know"
MIDDLE = 0.1
"""Half the width of the middle, as a part of the picture's width."""
SAME_S = 0.1
"""Starts that lie so near to each other are one."""
_NUMBERS = "zero one two three four five six seven eight nine ten".split()
_ORDER = "first second third fourth fifth".split()


class Unclear(Exception):
    """The question has no single answer."""


@dataclass(frozen=True)
class One:
    """An instrument of a clip, as a row of `truth.json` has it."""

    kind: str
    x: float | None
    start: float | None
    end: float
    level: float
    rate: float

    @property
    def seen(self) -> bool:
        return self.x is not None

    @property
    def sounds(self) -> bool:
        return self.start is not None

    @property
    def begin(self) -> float:
        if self.start is None:
            raise Unclear(f"the {self.kind} is silent")
        return self.start

    @property
    def side(self) -> str:
        if self.x is None:
            raise Unclear(f"the {self.kind} is not on the picture")
        if abs(self.x - 0.5) <= MIDDLE:
            return "middle"
        return "left" if self.x < 0.5 else "right"


class World:
    """A clip."""

    def __init__(self, truth: Mapping[str, Any]) -> None:
        self.seconds = float(truth["seconds"])
        self.place = str(truth["place"])
        self.narrated = truth["voiceover"] is not None
        self.all = [
            One(
                kind=row["instrument"],
                x=row["x"],
                start=row["start_s"],
                end=row["end_s"] or 0.0,
                level=row["level_db"] or 0.0,
                rate=row["rate_hz"] or 0.0,
            )
            for row in truth["players"]
        ]

    def seen(self, kind: str = "", side: str = "") -> list[One]:
        """On the picture."""
        found = [one for one in self.all if one.seen and kind in ("", one.kind)]
        return [one for one in found if side in ("", one.side)]

    def heard(self, kind: str = "") -> list[One]:
        """In the sound, on the picture or not."""
        return [one for one in self.all if one.sounds and kind in ("", one.kind)]

    def heard_and_seen(self, kind: str = "") -> list[One]:
        return [one for one in self.heard(kind) if one.seen]

    def whole(self, one: One) -> bool:
        """Whether it plays from beginning to end."""
        return one.sounds and one.begin <= SAME_S and one.end >= self.seconds - SAME_S


def _the(found: Iterable[One]) -> One:
    """What "the" means: exactly one."""
    things = list(found)
    if len(things) != 1:
        raise Unclear(f"{len(things)} fit")
    return things[0]


def _agreed(*readings: Any) -> Any:
    """What all ways to read a question come to."""
    if len(set(readings)) != 1:
        raise Unclear(f"it can be read as {' and as '.join(map(str, readings))}")
    return readings[0]


def _polar(truth: bool) -> str:
    return "yes" if truth else "no"


def _more(one: float, other: float) -> str:
    if one == other:
        raise Unclear("both are equal")
    return _polar(one > other)


def _kinds(players: Iterable[One]) -> int:
    return len({one.kind for one in players})


# -- rules: a world and the slots, in the order of the template --------------------------------


def _compared(measure: Callable[[One], float]) -> Callable[..., str]:
    """`the <Object> … than the <Object>`, by ear."""
    return lambda w, a, b: _more(measure(_the(w.heard(a))), measure(_the(w.heard(b))))


def _compared_there(measure: Callable[[One], float]) -> Callable[..., str]:
    """With the sides at which both stand; `None` for any instrument there."""

    def rule(w: World, a: str, here: str, b: str, there: str) -> str:
        one, other = _the(w.seen(a, here)), _the(w.seen(b, there))
        _ = one.begin, other.begin  # both must sound
        return _more(measure(one), measure(other))

    return rule


def _level(one: One) -> float:
    return one.level


def _rate(one: One) -> float:
    return one.rate


def _length(one: One) -> float:
    return one.end - one.begin


def _sides_compared(measure: Callable[[One], float]) -> Callable[..., str]:
    rule = _compared_there(measure)
    return lambda w, here, there: rule(w, "", here, "", there)


def _silent(w: World) -> str:
    """Never, or not all the time."""
    never = sum(not one.sounds for one in w.seen())
    return _NUMBERS[_agreed(never, sum(not w.whole(one) for one in w.seen()))]


def _from_picture(w: World) -> str:
    """All that is heard comes from there, or nothing does; nobody sees the narrator."""
    sources = [one.seen for one in w.heard()] + [False] * w.narrated
    return _polar(_agreed(*sources))


def _beside(w: World, side: str, one: One) -> str:
    """The only instrument on one side of another."""
    if one.x is None or side not in ("left", "right"):
        raise Unclear("nothing is beside it")
    sign = -1 if side == "left" else 1
    return _the(p for p in w.seen() if p.x is not None and sign * (p.x - one.x) > 0).kind


def _utmost(players: Sequence[One], key: Callable[[One], float], *, most: bool) -> One:
    """The one with the largest or smallest value."""
    if len(players) < 2:
        raise Unclear("there is nothing to choose from")
    value = (max if most else min)(map(key, players))
    return _the(one for one in players if key(one) == value)


def _first_or_last(players: Sequence[One], word: str) -> One:
    """To start; who is last must also be heard last."""
    one = _utmost(players, lambda p: p.begin, most=word == "last")
    if word == "last" and any(p.end > one.end for p in players):
        raise Unclear("the last to start is not the last to be heard")
    return one


def _loudest(w: World, word: str) -> str:
    return _utmost(w.heard(), _level, most=word == "loudest").side


def _together(w: World, kind: str) -> str:
    one = _the(w.heard(kind))
    others = (p for p in w.heard() if p is not one)
    return _the(p for p in others if p.begin < one.end and one.begin < p.end).kind


def _comes_in(w: World, word: str) -> str:
    order = sorted(w.heard(), key=lambda p: p.begin)
    at = _ORDER.index(word)
    if at >= len(order) or any(
        p.begin - order[at].begin == 0 for n, p in enumerate(order) if n != at
    ):
        raise Unclear(f"none, or several, come in {word}")
    return order[at].kind


def _of_a_kind(w: World, kind: str, word: str) -> str:
    """Which of several equal instruments starts first or last: its side."""
    players = w.heard_and_seen(kind)
    starts = [p.begin for p in players]
    if len(players) > 1 and max(starts) - min(starts) <= SAME_S:
        return "simultaneously"
    side = _first_or_last(players, word).side
    return _the(w.seen(kind, side)).side


def _around(w: World, word: str, kind: str) -> str:
    one = _the(w.heard(kind))
    sign = -1 if word == "before" else 1
    return _the(p for p in w.heard() if sign * (p.begin - one.begin) > 0).kind


RULES: dict[str, Callable[..., str]] = {
    "Is the <Object> louder than the <Object>?": _compared(_level),
    "Is the <Object> more rhythmic than the <Object>?": _compared(_rate),
    "Is the <Object> playing longer than the <Object>?": _compared(_length),
    "Are there <Object> and <Object> sound?": lambda w, a, b: _polar(
        bool(w.heard(a)) and bool(w.heard(b))
    ),
    "How many musical instruments were heard throughout the video?": lambda w: _NUMBERS[
        len(w.heard())
    ],
    "Is there a <Object> sound?": lambda w, a: _polar(bool(w.heard(a))),
    "Are there <Object> and <Object> instruments in the video?": lambda w, a, b: _polar(
        bool(w.seen(a)) and bool(w.seen(b))
    ),
    "How many <Object> are in the entire video?": lambda w, a: _NUMBERS[len(w.seen(a))],
    "How many types of musical instruments appeared in the entire video?": lambda w: _NUMBERS[
        _kinds(w.seen())
    ],
    "Is there a <Object> in the entire video?": lambda w, a: _polar(bool(w.seen(a))),
    "What is the instrument on the <LR> of <Object>?": lambda w, side, a: _beside(
        w, side, _the(w.seen(a))
    ),
    "What kind of instrument is the <LRer> instrument?": lambda w, word: (
        _utmost(w.seen(), lambda p: p.x or 0.0, most=word == "rightest").kind
    ),
    "What kind of musical instrument is it?": lambda w: _agreed(*(p.kind for p in w.seen())),
    "Where is the performance?": lambda w: w.place,
    "Is the <Object> on the <LR> louder than the <Object> on the <LR>?": _compared_there(_level),
    "Is the <Object> on the <LR> more rhythmic than the <Object> on the <LR>?": _compared_there(
        _rate
    ),
    "Is the instrument on the <LR> louder than the instrument on the <LR>?": _sides_compared(
        _level
    ),
    "Is the instrument on the <LR> more rhythmic than the instrument on the <LR>?": (
        _sides_compared(_rate)
    ),
    "How many instruments are sounding in the video?": lambda w: _NUMBERS[
        _agreed(len(w.heard()), len(w.heard_and_seen()))
    ],
    "How many instruments in the video did not sound from beginning to end?": _silent,
    "How many sounding <Object> in the video？": lambda w, a: _NUMBERS[
        _agreed(len(w.heard(a)), len(w.heard_and_seen(a)))
    ],
    "How many types of musical instruments sound in the video?": lambda w: _NUMBERS[
        _agreed(_kinds(w.heard()), _kinds(w.heard_and_seen()))
    ],
    "Is the <Object> in the video always playing?": lambda w, a: _polar(w.whole(_the(w.seen(a)))),
    "Is there a voiceover?": lambda w: _polar(w.narrated),
    "Is this sound from the instrument in the video?": _from_picture,
    "Is the <FL> sound coming from the <LR> instrument?": lambda w, word, side: _polar(
        _the(w.seen(side=side)) is _first_or_last(w.heard(), word)
    ),
    "What is the <LR> instrument of the <FL> sounding instrument?": lambda w, side, word: _beside(
        w, side, _first_or_last(w.heard(), word)
    ),
    "Where is the <LL> instrument?": _loudest,
    "Which is the musical instrument that sounds at the same time as the <Object>?": _together,
    "What is the <TH> instrument that comes in?": _comes_in,
    "Where is the <FL> sounding instrument?": lambda w, word: _first_or_last(w.heard(), word).side,
    "Which <Object> makes the sound <FL>?": _of_a_kind,
    "Which instrument makes sounds <BA> the <Object>?": _around,
}


def truth_of(world: World, template: str, slots: Sequence[str]) -> str:
    """One of the 42 answers. Raises Unclear where the question has no single one."""
    return RULES[template](world, *slots)


# -- the engine --------------------------------------------------------------------------------

_SOUND, _PICTURE = ("Audio", "Audio-Visual"), ("Visual", "Audio-Visual")


class Oracle:
    """Answers the questions of one set."""

    def __init__(self, asked: QuestionSet) -> None:
        """Take the truth and what each wording means; of the gold answers nothing."""
        self._worlds = {name: World(scene.to_json()) for name, scene in asked.scenes.items()}
        self._meant: defaultdict[tuple[str, str], set[tuple[str, tuple[str, ...]]]]
        self._meant = defaultdict(set)
        for one in asked.questions:
            if one.template is not None:
                self._meant[one.video_id, one.question].add((one.template, one.slots))

    def label(
        self, video_id: str, question: str, *, sound: bool = True, picture: bool = True
    ) -> str | None:
        """The answer to a question of the set, as it is worded there; None: it cannot be known.

        A wording that stands for two questions is answered where both have one answer.
        """
        found = set()
        for template, slots in self._meant.get((video_id, question), ()):
            modality = TEMPLATES[template].modality
            if (modality in _SOUND and not sound) or (modality in _PICTURE and not picture):
                return None
            try:
                found.add(truth_of(self._worlds[video_id], template, slots))
            except Unclear:
                return None
        return found.pop() if len(found) == 1 else None

    def read(self, path: Path) -> Clip:
        """See which streams a file has: no more of it is needed. Raises MediaError."""
        info = probe(path)
        seconds = info.duration_s or 0.0
        heard, seen = int(info.sound is not None), int(info.picture is not None)
        return Clip(
            path=str(path),
            sha256="",
            duration_s=seconds,
            frames_THWC=np.zeros((seen, 1, 1, 3), np.uint8),
            frame_times_s=np.zeros(seen),
            sound_CS=np.zeros((heard, heard), np.float32),
            sound_rate_hz=heard,
            sound_span_s=(0.0, seconds * heard),
            picture_span_s=(0.0, seconds * seen),
        )

    def answer(
        self, clips: Sequence[Clip], asked: Sequence[Asked], *, evidence: bool = False
    ) -> list[Answer]:
        """Answer from the truth, as far as sound and picture are there; `evidence` is none."""
        return [self._say(clips[one.clip], one.question) for one in asked]

    def _say(self, clip: Clip, question: str) -> Answer:
        there = {"sound": clip.has_sound, "picture": clip.has_picture}
        label = self.label(Path(clip.path).stem, question, **there)
        return Answer(
            answer=UNKNOWN if label is None else label.replace("_", " "),
            label="no_answer" if label is None else label,
            probability=0.0 if label is None else 1.0,
            consumed=Consumed(
                **there, sound_tokens=int(clip.has_sound), picture_tokens=int(clip.has_picture)
            ),
        )


def disagreements(asked: QuestionSet) -> list[str]:
    """The questions of a set whose gold answer is not the oracle's: a line each."""
    oracle = Oracle(asked)
    told = ((one, oracle.label(one.video_id, one.question)) for one in asked.questions)
    return [
        f"{one.video_id}, question {one.question_id}, {one.question!r}: {one.gold} in the file, "
        f"{label or 'no single answer'} from the truth"
        for one, label in told
        if label != one.gold
    ]
