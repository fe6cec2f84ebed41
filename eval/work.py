"""What is done with one chunk: read, answer, probe, control. Runs in worker processes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from avqa_llm.answer import Answer
from avqa_llm.errors import MediaError
from avqa_llm.media import Clip, probe
from eval.benchmarks.base import Question
from eval.control import Wording, asked_as, controls
from eval.engines import Asked, Engine
from eval.job import Chunk, Unit
from eval.journal import Delivered, Done, Missing
from eval.samples import ProbeSample, Sample
from eval.scoring import Scorer
from instruct_data.bandstand.scene import Scene
from instruct_data.sources.music_avqa import FLIP

ROUNDING = 1e-4  # of a softmax in half precision


@dataclass(frozen=True, kw_only=True)
class Task:
    """A chunk with all that a worker needs for it."""

    chunk: Chunk
    files: Mapping[str, Path]
    """Where the clips of this chunk lie; those that are not there are missing."""
    scenes: Mapping[str, Scene] = field(default_factory=dict)
    probes: tuple[str, ...] = ()
    mute: bool = False
    blank: bool = False
    evidence: bool = True


@dataclass(frozen=True, kw_only=True)
class Unread:
    """Which streams a file has of which the engine's own reading gave nothing."""

    sound: bool
    picture: bool


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A clip that could be read, and what is asked of it."""

    clip: Clip
    questions: tuple[Question, ...]
    unread: Unread


def work(task: Task, engine: Engine, *, score: Scorer, wording: Wording = asked_as) -> Done:
    """Answer a chunk. Raises what the engine raises; clips that cannot be read are missing."""
    started = time.perf_counter()
    shown, missing = _read(task, engine)
    if not shown:
        return Done(number=task.chunk.number, missing=missing)
    clips = [one.clip for one in shown]
    rows = [(n, question) for n, one in enumerate(shown) for question in one.questions]
    answers = ask(engine, clips, rows, evidence=task.evidence, wording=wording)
    seconds = (time.perf_counter() - started) / len(rows)
    said = [(shown[n], question, a) for (n, question), a in zip(rows, answers, strict=True)]
    for one, _, answer in said:
        _refuse_impossible(one.clip, answer)
    probes, left_out = _probe(task, engine, shown, score)
    control = []
    if task.chunk.control:
        control = controls(
            engine,
            clips,
            [one.questions for one in shown],
            {question.number: answer for _, question, answer in said},
            wording=wording,
            score=score,
        )
    return Done(
        number=task.chunk.number,
        samples=[_sample(question, answer, score, seconds) for _, question, answer in said],
        probes=probes,
        control=control,
        left_out=left_out,
        missing=missing,
        sound=_delivered([(one, answer) for one, _, answer in said], "sound"),
        picture=_delivered([(one, answer) for one, _, answer in said], "picture"),
    )


# -- reading ---------------------------------------------------------------------------------


def _read(task: Task, engine: Engine) -> tuple[list[Shown], dict[str, Missing]]:
    shown: list[Shown] = []
    missing: dict[str, Missing] = {}
    for unit in task.chunk.units:
        needed = [unit.video_id, *([unit.sound_of] if unit.sound_of else [])]
        read = {name: _file(name, task, engine) for name in needed}
        missing |= {name: one for name, one in read.items() if isinstance(one, Missing)}
        clips = [one for one in read.values() if not isinstance(one, Missing)]
        if len(clips) < len(needed):
            continue
        clip = _as_shown(unit, task, clips[0], clips[-1])
        shown.append(
            Shown(
                clip=clip,
                questions=unit.questions,
                unread=Unread(
                    sound=not (clip.has_sound or task.mute)
                    and probe(task.files[needed[-1]]).sound is not None,
                    picture=not (clip.has_picture or task.blank)
                    and probe(task.files[unit.video_id]).picture is not None,
                ),
            )
        )
    return shown, missing


def _file(name: str, task: Task, engine: Engine) -> Clip | Missing:
    if name not in task.files:
        return Missing(why="there is no such file", size=None)
    try:
        return engine.read(task.files[name])
    except MediaError as error:
        return Missing(why=str(error), size=task.files[name].stat().st_size)


def _as_shown(unit: Unit, task: Task, clip: Clip, other: Clip) -> Clip:
    """v2 mirrors some pictures, and lays another clip's sound under some."""
    if unit.video_id.endswith(FLIP) and task.files[unit.video_id].stem != unit.video_id:
        clip = replace(clip, frames_THWC=clip.frames_THWC[:, :, ::-1].copy())
    if unit.sound_of:
        clip = replace(
            clip,
            sound_CS=other.sound_CS,
            sound_rate_hz=other.sound_rate_hz,
            sound_span_s=other.sound_span_s,
            duration_s=max(clip.picture_span_s[1], other.sound_span_s[1]),
            notes=(*clip.notes, f"with the sound of {unit.sound_of}"),
        )
    clip = clip.muted() if task.mute else clip
    return clip.blanked() if task.blank else clip


# -- asking ----------------------------------------------------------------------------------


def ask(
    engine: Engine,
    clips: Sequence[Clip],
    rows: Sequence[tuple[int, Question]],
    *,
    evidence: bool = False,
    wording: Wording = asked_as,
) -> list[Answer]:
    """Ask (clip number, question) rows. The engine sees no gold answer."""
    asked = [
        Asked(clip=n, question=wording(question), choices=question.choices) for n, question in rows
    ]
    answers = engine.answer(clips, asked, evidence=evidence)
    if len(answers) != len(rows):
        raise RuntimeError(f"{len(answers)} answers to {len(rows)} questions")
    return answers


def _refuse_impossible(clip: Clip, answer: Answer) -> None:
    used = answer.consumed
    if used and ((used.sound and not clip.has_sound) or (used.picture and not clip.has_picture)):
        raise RuntimeError(f"the engine consumed what {clip.path} does not have")
    chance = answer.probability
    if chance is not None and not -ROUNDING <= chance <= 1 + ROUNDING:
        raise RuntimeError(f"probability {chance} about {clip.path} is outside 0..1")


def _sample(question: Question, answer: Answer, score: Scorer, seconds: float) -> Sample:
    return Sample.about(
        question,
        answer=answer.answer,
        label=score(answer.answer, question),
        engine_label=answer.label,
        probability=_chance(answer),
        alternatives=answer.alternatives,
        consumed=answer.consumed,
        evidence=answer.evidence,
        warnings=answer.warnings,
        seconds=round(seconds, 6),
    )


def _chance(answer: Answer) -> float | None:
    if answer.probability is None:
        return None
    return round(min(max(float(answer.probability), 0.0), 1.0), 4)


def _delivered(rows: Sequence[tuple[Shown, Answer]], modality: str) -> Delivered:
    there = [a.consumed for one, a in rows if getattr(one.clip, f"has_{modality}")]
    return Delivered(
        there=len(there),
        consumed=sum(used is not None and getattr(used, modality) for used in there),
        unproven=sum(used is None for used in there),
        unread=sum(getattr(one.unread, modality) for one, _ in rows),
    )


# -- probes ----------------------------------------------------------------------------------


def _probe(
    task: Task, engine: Engine, shown: Sequence[Shown], score: Scorer
) -> tuple[list[ProbeSample], dict[str, dict[str, int]]]:
    from eval.probes import PROBES
    from eval.probes import Chunk as Probed

    if not task.probes:
        return [], {}
    chunk = Probed(
        clips=tuple(one.clip for one in shown),
        questions=tuple(_one_wording(one.questions) for one in shown),
        scenes=tuple(task.scenes.get(one.questions[0].video_id) for one in shown),
    )
    by_row = {question.number: question for rows in chunk.questions for question in rows}
    samples: list[ProbeSample] = []
    left_out: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for name in task.probes:
        changed = PROBES[name].change(chunk)
        left_out[name] = dict(changed.left_out)
        asked = [
            Asked(clip=case.clip, question=case.question, choices=case.choices)
            for case in changed.cases
        ]
        answers = engine.answer(changed.clips, asked) if asked else []
        for case, answer in zip(changed.cases, answers, strict=True):
            samples.append(
                ProbeSample(
                    probe=name,
                    row=case.row,
                    question=case.question,
                    expected=case.expected,
                    answer=answer.answer,
                    label=score(answer.answer, by_row[case.row]),
                    probability=_chance(answer),
                    consumed=answer.consumed,
                )
            )
    return samples, dict(left_out)


def _one_wording(questions: Sequence[Question]) -> tuple[Question, ...]:
    """The first wording of each question: a change is asked about once."""
    first: dict[object, Question] = {}
    for question in questions:
        first.setdefault(question.original, question)
    return tuple(first.values())
