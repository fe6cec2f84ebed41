"""What is done with one chunk: read, answer, probe, control. Runs in worker processes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from avqa_llm.answer import Answer
from avqa_llm.errors import MediaError
from avqa_llm.media import Clip
from eval.benchmarks.base import Question
from eval.control import Wording, asked_as, controls
from eval.engines import Asked, Engine
from eval.job import Chunk, Unit
from eval.journal import Delivered, Done, Missing
from eval.samples import ProbeSample, Sample
from instruct_data.bandstand.scene import Scene

ROUNDING = 1e-4  # of a softmax in half precision
FLIP = "_flip"
Score = Callable[[str, Question], str]


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
class Shown:
    """A clip that could be read, and what is asked of it."""

    clip: Clip
    questions: tuple[Question, ...]


def work(task: Task, engine: Engine, *, score: Score, wording: Wording = asked_as) -> Done:
    """Answer a chunk. Raises what the engine raises; clips that cannot be read are missing."""
    started = time.perf_counter()
    shown, missing = _read(task, engine)
    if not shown:
        return Done(number=task.chunk.number, missing=missing)
    clips = [one.clip for one in shown]
    rows = [(n, question) for n, one in enumerate(shown) for question in one.questions]
    answers = ask(engine, clips, rows, evidence=task.evidence, wording=wording)
    seconds = (time.perf_counter() - started) / len(rows)
    said = [(clips[n], question, a) for (n, question), a in zip(rows, answers, strict=True)]
    for clip, _, answer in said:
        _refuse_impossible(clip, answer)
    probes, left_out = _probe(task, engine, shown, score)
    return Done(
        number=task.chunk.number,
        samples=[_sample(question, answer, score, seconds) for _, question, answer in said],
        probes=probes,
        control=controls(
            engine,
            clips,
            [one.questions for one in shown],
            {question.number: answer for _, question, answer in said},
            wording=wording,
            score=score,
        ),
        left_out=left_out,
        missing=missing,
        sound=_delivered([(clip.has_sound, answer) for clip, _, answer in said], "sound"),
        picture=_delivered([(clip.has_picture, answer) for clip, _, answer in said], "picture"),
    )


# -- reading ---------------------------------------------------------------------------------


def _read(task: Task, engine: Engine) -> tuple[list[Shown], dict[str, Missing]]:
    shown: list[Shown] = []
    missing: dict[str, Missing] = {}
    for unit in task.chunk.units:
        needed = [unit.video_id, *([unit.sound_of] if unit.sound_of else [])]
        absent = [name for name in needed if name not in task.files]
        for name in absent:
            missing[name] = Missing(why="there is no such file", size=None)
        if absent:
            continue
        try:
            clip = _clip(unit, task, engine)
        except MediaError as error:
            name, size = unit.video_id, task.files[unit.video_id].stat().st_size
            missing[name] = Missing(why=str(error), size=size)
            continue
        clip = clip.muted() if task.mute else clip
        clip = clip.blanked() if task.blank else clip
        shown.append(Shown(clip=clip, questions=unit.questions))
    return shown, missing


def _clip(unit: Unit, task: Task, engine: Engine) -> Clip:
    """The clip as it is shown: v2 mirrors some pictures, and lays other sounds under some."""
    path = task.files[unit.video_id]
    clip = engine.read(path)
    if unit.video_id.endswith(FLIP) and path.stem != unit.video_id:
        clip = replace(clip, frames_THWC=clip.frames_THWC[:, :, ::-1].copy())
    if unit.sound_of:
        other = engine.read(task.files[unit.sound_of])
        clip = replace(
            clip,
            sound_CS=other.sound_CS,
            sound_rate_hz=other.sound_rate_hz,
            sound_span_s=other.sound_span_s,
            duration_s=max(clip.picture_span_s[1], other.sound_span_s[1]),
            notes=(*clip.notes, f"with the sound of {unit.sound_of}"),
        )
    return clip


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


def _sample(question: Question, answer: Answer, score: Score, seconds: float) -> Sample:
    return Sample(
        row=question.number,
        video_id=question.video_id,
        question_id=question.question_id,
        template=question.template,
        type=question.type,
        question=question.question,
        gold=question.gold,
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


def _delivered(rows: Sequence[tuple[bool, Answer]], modality: str) -> Delivered:
    there = [answer.consumed for has, answer in rows if has]
    return Delivered(
        there=len(there),
        consumed=sum(used is not None and getattr(used, modality) for used in there),
        unproven=sum(used is None for used in there),
    )


# -- probes ----------------------------------------------------------------------------------


def _probe(
    task: Task, engine: Engine, shown: Sequence[Shown], score: Score
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
