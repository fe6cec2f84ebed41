"""Robustness probes: a clip or a question is changed, and the answer should follow or stay."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from avqa_llm.media import Clip
from eval.benchmarks.base import Question
from eval.probes import media, truth
from eval.probes.media import LeftOut
from eval.probes.truth import NEEDS, PICTURE, SOUND, Judge, Judged
from eval.probes.words import OTHER_TYPE
from instruct_data.bandstand.scene import Scene

NO_OTHER = "there is no other clip to take it from"
NEEDS_BOTH = "it needs both sound and picture"


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Clips that are handled together."""

    clips: tuple[Clip, ...]
    """Decoded."""
    questions: tuple[tuple[Question, ...], ...]
    """Of each clip; one wording of each question."""
    scenes: tuple[Scene | None, ...]
    """Of each clip: the exact truth; None but on Bandstand."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A question after the change."""

    row: int
    """Number of the question that was changed."""
    clip: int
    """Which of `Changed.clips` it is asked about."""
    question: str
    expected: str | None
    """The right answer after the change; None where it cannot be known."""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Changed:
    """A chunk after the change. Clips that nothing is asked about are not in it."""

    clips: tuple[Clip, ...]
    cases: tuple[Case, ...]
    left_out: Counter[str] = field(default_factory=Counter)
    """Why questions are not asked, and how many."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The place of a probe among those that differ from it in strength alone."""

    of: str
    at: float
    unit: str


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One change, and what is right after it."""

    name: str
    about: str
    """For people: what is done, in one sentence."""
    family: str
    """`sound`, `picture`, `time`, `space`, `words` or `quality`."""
    change: Callable[[Chunk], Changed]
    from_scene: bool = False
    """Whether the truth after the change is computed from the scene where there is one."""
    sweep: Sweep | None = None
    """How strong it is, where it is one of several of its kind."""


Edit = Callable[[Chunk, int], "tuple[Clip, Scene | None]"]
"""From a clip's number in its chunk: the changed clip, and the scene of the other clip that gave
its sound or picture. Raises LeftOut."""


def _change(chunk: Chunk, *, edit: Edit, judge: Judge, threads: int = 1) -> Changed:
    """Change each clip and judge its questions."""
    asked = [n for n, questions in enumerate(chunk.questions) if questions]
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            edited = list(pool.map(functools.partial(_edited, chunk, edit), asked))
    else:
        edited = [_edited(chunk, edit, n) for n in asked]
    clips: list[Clip] = []
    cases: list[Case] = []
    left_out: Counter[str] = Counter()
    for n, outcome in zip(asked, edited, strict=True):
        if isinstance(outcome, LeftOut):
            left_out[str(outcome)] += len(chunk.questions[n])
            continue
        clip, other = outcome
        found = []
        for question in chunk.questions[n]:
            try:
                judged = judge(question, chunk.scenes[n], other)
            except LeftOut as why:
                left_out[str(why)] += 1
                continue
            found.append(_case(question, judged, len(clips)))
        if found:
            clips.append(clip)
            cases += found
    return Changed(clips=tuple(clips), cases=tuple(cases), left_out=left_out)


def _edited(chunk: Chunk, edit: Edit, n: int) -> tuple[Clip, Scene | None] | LeftOut:
    try:
        return edit(chunk, n)
    except LeftOut as why:
        return why


def _case(question: Question, judged: Judged, clip: int) -> Case:
    return Case(
        row=question.number,
        clip=clip,
        question=judged.question,
        expected=judged.expected,
        choices=judged.choices,
    )


def _alone(change: Callable[[Clip], Clip]) -> Edit:
    """The edit of a clip that needs no other one."""
    return lambda chunk, n: (change(chunk.clips[n]), None)


def _with_other(change: Callable[[Clip, Clip], Clip], *, has: str) -> Edit:
    """The edit that takes from the next clip of the chunk, after the last one the first."""

    def edit(chunk: Chunk, n: int) -> tuple[Clip, Scene | None]:
        clip, count = chunk.clips[n], len(chunk.clips)
        for step in range(1, count):
            other = chunk.clips[(n + step) % count]
            # A clip may be in a chunk twice, with another sound or mirrored.
            if getattr(other, has) and other.sha256 != clip.sha256:
                return change(clip, other), chunk.scenes[(n + step) % count]
        raise LeftOut(NO_OTHER)

    return edit


def _missing_modality(chunk: Chunk) -> Changed:
    """Take away what the type of a question does not need: another clip for either type."""
    needed = {SOUND: media.blanked, PICTURE: media.muted}
    clips: list[Clip] = []
    cases: list[Case] = []
    left_out: Counter[str] = Counter()
    for modality, change in needed.items():
        part = _change(_that_need(chunk, modality), edit=_alone(change), judge=truth.stays)
        cases += [replace(case, clip=case.clip + len(clips)) for case in part.cases]
        clips += part.clips
        left_out += part.left_out
    for question in (question for questions in chunk.questions for question in questions):
        if question.scene not in NEEDS:
            left_out[OTHER_TYPE] += 1
        elif len(NEEDS[question.scene]) > 1:
            left_out[NEEDS_BOTH] += 1
    return Changed(clips=tuple(clips), cases=tuple(cases), left_out=left_out)


def _that_need(chunk: Chunk, modality: str) -> Chunk:
    only = frozenset({modality})
    kept = (
        tuple(question for question in questions if NEEDS.get(question.scene) == only)
        for questions in chunk.questions
    )
    return replace(chunk, questions=tuple(kept))


# -- the probes ------------------------------------------------------------------------------


def _probe(
    name: str,
    family: str,
    about: str,
    edit: Edit,
    judge: Judge,
    *,
    from_scene: bool = False,
    sweep: Sweep | None = None,
    threads: int = 1,
) -> Probe:
    return Probe(
        name=name,
        about=about,
        family=family,
        change=functools.partial(_change, edit=edit, judge=judge, threads=threads),
        from_scene=from_scene,
        sweep=sweep,
    )


def _taken_away() -> tuple[Probe, ...]:
    return (
        _probe(
            "mute",
            "sound",
            "The sound is taken away: what rests on it cannot be known any more.",
            _alone(media.muted),
            truth.without(SOUND),
        ),
        _probe(
            "blank",
            "picture",
            "The picture is taken away: what rests on it cannot be known any more.",
            _alone(media.blanked),
            truth.without(PICTURE),
        ),
        _probe(
            "question-only",
            "words",
            "Sound and picture are both taken away: nothing is left but the question.",
            _alone(media.emptied),
            truth.without(SOUND, PICTURE),
        ),
        Probe(
            name="missing-modality",
            family="quality",
            about="What a question does not need is taken away: the picture where it is about "
            "sound, the sound where it is about the picture.",
            change=_missing_modality,
        ),
    )


def _from_another() -> tuple[Probe, ...]:
    return (
        _probe(
            "sound-swapped",
            "sound",
            "The clip gets the sound of another clip.",
            _with_other(media.with_sound_of, has="has_sound"),
            truth.sound_swapped,
            from_scene=True,
        ),
        _probe(
            "picture-swapped",
            "picture",
            "The clip gets the picture of another clip.",
            _with_other(media.with_picture_of, has="has_picture"),
            truth.picture_swapped,
            from_scene=True,
        ),
    )


def _shift(seconds: int) -> Probe:
    way = "later" if seconds > 0 else "earlier"
    return _probe(
        f"shift{seconds:+d}",
        "time",
        f"The sound comes {abs(seconds)} s {way} than the picture.",
        _alone(lambda clip: media.shifted(clip, seconds)),
        truth.shifted(seconds),
        from_scene=True,
        sweep=Sweep(of="shift", at=seconds, unit="s"),
    )


def _turned() -> tuple[Probe, ...]:
    return (
        _probe(
            "reverse",
            "time",
            "The clip plays backwards, and the question has first and last, before and after "
            "exchanged.",
            _alone(media.time_reversed),
            truth.time_reversed,
            from_scene=True,
        ),
        _probe(
            "mirror",
            "space",
            "Left and right are exchanged in picture, sound and question.",
            _alone(media.mirrored),
            truth.mirrored,
            from_scene=True,
        ),
        _probe(
            "swap",
            "words",
            "A comparison is asked the other way round: yes becomes no.",
            _alone(lambda clip: clip),
            truth.swapped,
            from_scene=True,
        ),
    )


def _quality(
    name: str,
    about: str,
    change: Callable[[Clip], Clip],
    *,
    sweep: Sweep,
    threads: int = 1,
) -> Probe:
    edit = _alone(change)
    return _probe(name, "quality", about, edit, truth.stays, sweep=sweep, threads=threads)


def _noise(snr_db: int) -> Probe:
    level = f"{snr_db} dB below the sound" if snr_db else "as strong as the sound itself"
    return _quality(
        f"noise-{snr_db}",
        f"White noise is added, {level}.",
        lambda clip: media.noisy(clip, snr_db),
        sweep=Sweep(of="noise", at=snr_db, unit="signal to noise, dB"),
    )


def _frames(percent: int) -> Probe:
    return _quality(
        f"frames-{percent}",
        f"Of the frames {percent} % are dropped; the one before stands still instead.",
        lambda clip: media.frames_dropped(clip, percent / 100),
        sweep=Sweep(of="dropped frames", at=percent, unit="%"),
    )


def _resolution(factor: int) -> Probe:
    return _quality(
        f"resolution-{factor}",
        f"The picture loses its details: it is made {factor} times smaller and large again.",
        lambda clip: media.lower_resolution(clip, factor),
        sweep=Sweep(of="resolution", at=factor, unit="times smaller"),
    )


def _compression(quality: int, kilobits: int) -> Probe:
    return _quality(
        f"compression-{quality}",
        f"Frames are compressed as JPEG at quality {quality}, the sound as AAC at {kilobits} kb/s.",
        lambda clip: media.compressed(clip, quality, 1000 * kilobits),
        sweep=Sweep(of="compression", at=quality, unit="JPEG quality"),
        threads=min(4, os.cpu_count() or 1),  # the codec works outside of Python's lock
    )


PROBES: dict[str, Probe] = {
    probe.name: probe
    for probe in (
        *_taken_away(),
        *_from_another(),
        *map(_shift, (1, -1, 3, -3)),
        *_turned(),
        *map(_noise, (20, 10, 0)),
        *map(_frames, (50, 90)),
        *map(_resolution, (2, 4)),
        _compression(30, 48),
        _compression(10, 24),
    )
}
"""Every probe by its name, in the order of the report."""
