"""The workbench: one clip, the engine that watches and listens, and the tools over both.

A tool gives a compact finding with times instead of media, and says where it comes from: measured
from the sound, said by the model, or transcribed. A wrong argument is an `AgentError` of one
sentence that a planning model can act on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from avqa_llm.acoustics import QUANTITIES, SIDES, Facts, facts_of, measure
from avqa_llm.agent import sides
from avqa_llm.agent.events import Events, parse
from avqa_llm.agent.lookup import KINDS, Unclear, value_of
from avqa_llm.agent.lookup import the as the_one
from avqa_llm.agent.meaning import Meaning
from avqa_llm.agent.telling import (
    MOST_SPANS,
    evidence_of,
    extreme_second,
    heard_at,
    line,
    listed,
    shifted,
    thing_of,
    told,
)
from avqa_llm.agent.wording import words_of
from avqa_llm.answer import Answer, Consumed, Evidence
from avqa_llm.errors import AgentError, AVQAError
from avqa_llm.media import Clip
from avqa_llm.media.changes import EDGE_S, Cut, changed
from avqa_llm.session import Session, finished

FROM_SIDE = ("onsets", "tempo", "pitch", "activity")
COMPARABLE = ("loudness", "rhythm", "length")
MOST_QUESTION = 500
"""Letters of a question to the model."""
SHORTEST_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a tool found."""

    tool: str
    text: str
    """One line, for a person and for a planning model."""
    kind: str
    """`measured`, `model` or `transcript`; see `avqa_llm.agent.report.KINDS`."""
    evidence: tuple[Evidence, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
    """The values in the text, as plain types."""

    def to_json(self) -> dict[str, Any]:
        """Plain types for `json.dumps`."""
        return asdict(self)


class Bench:
    """Tools over one clip. Nothing is read or measured twice, and nothing before it is wanted."""

    def __init__(self, engine: Any, clip: Clip, *, speech: str | Path | None = None) -> None:
        """Take a clip onto the bench.

        Args:
            engine: of `avqa_llm.engine.load_engine`, or one that is used alike.
            clip: as `engine.read` gives it.
            speech: a Whisper model, its name or directory, for `transcribe`; None: voice is found
                and not understood.
        """
        self.engine, self.clip, self.speech = engine, clip, speech
        self.answers: list[Answer] = []
        """All that the model answered, in order."""
        self._sides: dict[str, Clip] = {}

    @functools.cached_property
    def session(self) -> Session:
        """The engine's reading of the clip."""
        return Session(self.engine, self.clip)

    @functools.cached_property
    def facts(self) -> Facts:
        """What is measured of the sound."""
        return facts_of(self.clip)

    @functools.cached_property
    def events(self) -> Events:
        """The record that the model wrote, parsed; none for a model that writes none."""
        record, pace = self.record
        return parse(record, seconds=self.clip.duration_s, pace=pace)

    @property
    def record(self) -> tuple[str, float]:
        """The record and its pace."""
        reading = self.session.reading
        records: tuple[str, ...] = getattr(reading, "records", ())
        return (records[0], reading.paces[0]) if records else ("", 1.0)

    # -- tools ---------------------------------------------------------------------------------

    def describe_clip(self) -> Finding:
        """What the clip is, what the model wrote down about it, and what is measured of it."""
        clip, (record, _) = self.clip, self.record
        parts = [f"{clip.duration_s:.1f} s"]
        parts += [] if clip.has_picture else ["no picture"]
        parts += [] if clip.has_sound else ["no sound"]
        parts += ["the sound is silent"] if clip.is_silent else []
        said = f"the model noted: {told(self.events)}" if record else "the model keeps no notes"
        return Finding(
            tool="describe_clip",
            text="; ".join([*parts, said]),
            kind="model",
            evidence=tuple(e for p in self.events.players for e in evidence_of([p])),
            data={"seconds": clip.duration_s, "record": record, "warnings": self.session.warnings},
        )

    def ask(self, question: str) -> Finding:
        """Ask the model about the whole clip, with sound and picture."""
        answer = self.session.ask(self.checked(question), remember=False)
        return self._answered("ask", answer)

    def watch(self, start_s: float, end_s: float, question: str) -> Finding:
        """Ask the model about the picture of a part, without its sound."""
        if not self.clip.has_picture:
            raise AgentError("the clip has no picture to watch: use listen or measure")
        return self._about_part("watch", start_s, end_s, question)

    def listen(self, start_s: float, end_s: float, question: str) -> Finding:
        """Ask the model about the sound of a part, without its picture."""
        if not self.clip.has_sound:
            raise AgentError("the clip has no sound to listen to: use watch")
        return self._about_part("listen", start_s, end_s, question)

    def transcribe(self, start_s: float, end_s: float) -> Finding:
        """What is said in a part; without a speech model, when somebody speaks."""
        start, end = self.window(start_s, end_s)
        if not self.clip.has_sound:
            raise AgentError("the clip has no sound to transcribe: use watch")
        if self.speech is None:
            spans = [(max(s, start), min(e, end)) for s, e in self._voice if s < end and e > start]
            said = f"voice at {listed(spans)}" if spans else "no voice"
            text = f"{said} between {start:.1f} and {end:.1f} s; no speech model is loaded, so "
            text += "what is said cannot be told"
            return Finding(
                tool="transcribe",
                text=text,
                kind="transcript",
                evidence=heard_at(spans),
                data={"voice": spans, "text": None},
            )
        found = self._transcriber.transcribe(self.clip, start, end)
        spans = [(segment.start_s, segment.end_s) for segment in found.segments]
        return Finding(
            tool="transcribe",
            text=found.note or "no speech was found" if found.says_nothing else f'"{found.text}"',
            kind="transcript",
            evidence=heard_at(spans),
            data={"text": found.text, "language": found.language, "spans": spans},
        )

    def measure(
        self,
        quantity: str,
        start_s: float | None = None,
        end_s: float | None = None,
        side: str = "both",
    ) -> Finding:
        """Measure the sound of a part, or of a stereo side of it; all instruments together."""
        if quantity not in QUANTITIES:
            raise AgentError(f"{quantity!r} cannot be measured; choose {', '.join(QUANTITIES)}")
        if side not in SIDES:
            raise AgentError(f"there is no side {side!r}; choose {', '.join(SIDES)}")
        start, end = self.window(start_s, end_s)
        found = measure(self.clip, quantity, start, end, side)
        where = f"{start:.1f}-{end:.1f} s" + ("" if side == "both" else f", {side} channel")
        return Finding(
            tool="measure",
            text=f"{quantity} at {where}: {found.text()}",
            kind="measured",
            evidence=heard_at([(start, end)]),
            data=asdict(found),
        )

    def measure_from(
        self, from_side: str, quantity: str, start_s: float | None, end_s: float | None
    ) -> Finding:
        """Measure what sounds from the left, middle or right of a stereo sound; not how loud."""
        if quantity not in FROM_SIDE:
            raise AgentError(
                f"{quantity!r} is not measured from one side; choose {', '.join(FROM_SIDE)}"
            )
        start, end = self.window(start_s, end_s)
        if from_side not in self._sides:
            self._sides[from_side] = sides.from_side(self.clip, from_side)
        found = measure(self._sides[from_side], quantity, start, end)
        return Finding(
            tool="measure_from",
            text=f"{quantity} from the {from_side} at {start:.1f}-{end:.1f} s: {found.text()}",
            kind="measured",
            evidence=heard_at([(start, end)]),
            data={"from_side": from_side, **asdict(found)},
        )

    def find(self, what: str) -> Finding:
        """When something happens.

        `what`: an instrument, as the model noted it; or, measured, `sound`, `silence`, `onsets`,
        `loudest`, `quietest` or `voice`.
        """
        if measured := self._measured_moments(what.strip().lower()):
            return measured
        if not (names := [name for _, name in words_of(what).instruments]):
            raise AgentError(
                f"{what!r} is nothing that can be found: name an instrument, or one of sound, "
                "silence, onsets, loudest, quietest, voice"
            )
        players = [p for p in self.events.players if p.name in names]
        text = "; ".join(line(p) for p in players) or f"no {what} in the model's notes"
        data = {"players": [asdict(p) for p in players]}
        return Finding(
            tool="find", text=text, kind="model", evidence=evidence_of(players), data=data
        )

    def compare(self, quantity: str, one: str, other: str) -> Finding:
        """Which of two has more loudness, rhythm or length, as the model noted it.

        `one`, `other`: such as `violin`, `left`, or `left violin`.
        """
        if quantity not in COMPARABLE:
            raise AgentError(f"{quantity!r} cannot be compared; choose {', '.join(COMPARABLE)}")
        things = (thing_of(one), thing_of(other))
        meaning = Meaning(kind="compare", one=things[0], other=things[1], quantity=quantity)
        try:
            found = KINDS["compare"](meaning, self.events)
        except Unclear as error:
            text, data = f"cannot tell: {error}", {"more": None}
            return Finding(tool="compare", text=text, kind="model", data=data)
        first = things[0 if found.text == "yes" else 1]
        values = [value_of(the_one(thing, self.events), quantity) for thing in things]
        return Finding(
            tool="compare",
            text=f"{first} has more {quantity} ({found.why})",
            kind="model",
            evidence=evidence_of(found.about),
            data={"more": str(first), "values": values},
        )

    # -- inside --------------------------------------------------------------------------------

    def window(self, start_s: float | None, end_s: float | None) -> tuple[float, float]:
        """Times of a part. Raises AgentError where they are none of this clip."""
        long = self.clip.duration_s
        start, end = start_s or 0.0, long if end_s is None else end_s
        if not (0 <= start < end <= long + EDGE_S):  # also what is no number
            raise AgentError(
                f"{start:g} to {end:g} s is no part of this clip: give 0 <= start < end <= {long:g}"
            )
        if min(end, long) - start < min(SHORTEST_S, long):
            raise AgentError(f"{start:g} to {end:g} s is too short: give {SHORTEST_S} s or more")
        return start, min(end, long)

    def given(self) -> Consumed | None:
        """What of the clip reached the model for its record; None where an engine does not say."""
        if self.answers:
            return self.answers[-1].consumed
        from avqa_llm.engine import Reading
        from avqa_llm.evidence import reached

        reading = self.session.reading
        return reached(reading, 0) if isinstance(reading, Reading) else None

    def checked(self, question: str) -> str:
        """A question that can be asked. Raises AgentError where it is empty or too long."""
        if not question.strip() or len(question) > MOST_QUESTION:
            raise AgentError(
                f"a question of {len(question)} letters: give 1 to {MOST_QUESTION} letters"
            )
        return question

    def _answered(self, tool: str, answer: Answer) -> Finding:
        self.answers.append(answer)
        sure = "" if answer.probability is None else f" ({answer.probability:.0%} sure)"
        data = {"label": answer.label, "probability": answer.probability}
        return Finding(
            tool=tool,
            text=f"{answer.answer}{sure}",
            kind="model",
            evidence=answer.evidence,
            data=data | {"warnings": answer.warnings},
        )

    def _about_part(self, tool: str, start_s: float, end_s: float, question: str) -> Finding:
        start, end = self.window(start_s, end_s)
        is_whole = start == 0 and end == self.clip.duration_s
        cut = Cut(
            start_s=None if is_whole else start,
            end_s=None if is_whole else end,
            sound=tool == "listen",
            picture=tool == "watch",
        )
        asked = self.checked(question)
        (answer,) = self.engine.answer(changed(self.clip, cut), [asked], evidence=True)
        answer = finished(answer, self._warnings_of(answer), {})
        return self._answered(tool, shifted(answer, start))

    def _warnings_of(self, answer: Answer) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.session.warnings, *answer.warnings)))

    def _measured_moments(self, what: str) -> Finding | None:
        moments: dict[str, Callable[[], list[tuple[float, float]]]] = {
            "sound": lambda: [(s.start_s, s.end_s) for s in self.facts.active],
            "silence": lambda: [(s.start_s, s.end_s) for s in self.facts.silent],
            "onsets": lambda: [(t, t) for t in self.facts.onsets_s],
            "loudest": lambda: extreme_second(self.facts.loudness_lufs, max),
            "quietest": lambda: extreme_second(self.facts.loudness_lufs, min),
            "voice": lambda: list(self._voice),
        }
        if what not in moments:
            return None
        if not self.clip.has_sound:
            raise AgentError(f"{what} cannot be found: the clip has no sound")
        spans = moments[what]()
        return Finding(
            tool="find",
            text=f"{what}: {listed(spans) if spans else 'nowhere'}",
            kind="transcript" if what == "voice" else "measured",
            evidence=heard_at(spans[:MOST_SPANS]),
            data={"spans": spans},
        )

    @functools.cached_property
    def _voice(self) -> tuple[tuple[float, float], ...]:
        from avqa_llm.speech import voice_spans

        return tuple((span.start_s, span.end_s) for span in voice_spans(self.clip))

    @functools.cached_property
    def _transcriber(self) -> Any:
        from avqa_llm.speech import Transcriber

        if self.speech is None:
            raise AVQAError("no speech model was named")
        return Transcriber.load(self.speech)
