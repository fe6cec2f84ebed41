"""The embedded planner: no language model plans, rules do, so the same question has the same steps.

A question that rules understand is looked up in the events that the model wrote down, once for
the clip. Where these do not decide, the sound is measured, if it can decide; where that does not
either, or the question is none that rules understand, the model is asked as ever. Each step says
which of these it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from avqa_llm.agent.bench import Bench, Finding
from avqa_llm.agent.lookup import TIMES, Found, Unclear, look_up
from avqa_llm.agent.meaning import Meaning, meaning_of
from avqa_llm.agent.measuring import is_close, measured
from avqa_llm.agent.parts import parts_of
from avqa_llm.agent.report import Report, Step
from avqa_llm.agent.telling import evidence_of
from avqa_llm.agent.twice import look_twice
from avqa_llm.answer import Answer
from avqa_llm.errors import AVQAError
from avqa_llm.labels import NO_ANSWER, to_label

NAME = "rules"
MEASURED_NOTE = "Decided by measurement, because the model's notes do not decide it."


@dataclass(frozen=True, kw_only=True)
class Decided:
    """A question that needed no asking."""

    found: Found
    findings: tuple[Finding, ...] = ()
    """Of measurements and transcripts that decided; none where the record did."""

    @property
    def kind(self) -> str:
        """Of `avqa_llm.agent.report.KINDS`."""
        return self.findings[0].kind if self.findings else "model"


def decide(bench: Bench, question: str) -> tuple[Decided | None, str]:
    """Look a question up and measure, or None with the reason why the model has to be asked."""
    meaning = meaning_of(question)
    try:
        if looked := look_twice(question, bench):
            return Decided(found=looked[0], findings=looked[1]), ""
    except Unclear as error:
        return None, str(error)
    if meaning is None:
        return None, "no rule understands the question"
    if not bench.clip.has_sound or bench.clip.is_silent:
        return _unheard(meaning, "the clip has no sound, so its notes say nothing about any")
    noted: Found | None = None
    reasons = []
    try:
        noted = look_up(meaning, bench.events)
        if not is_close(meaning, bench.events):
            return Decided(found=noted), ""
    except Unclear as error:
        reasons.append(str(error))
    try:
        found, findings = measured(meaning, bench)
        return Decided(found=found, findings=findings), ""
    except Unclear as error:
        reasons.append(str(error))
    if noted is None and bench.events.knows_sound:
        return _unheard(meaning, *reasons)
    return (Decided(found=noted), "") if noted else (None, "; ".join(reasons))


def _unheard(meaning: Meaning, *why: str) -> tuple[Decided | None, str]:
    """What is left where the notes do not help: to ask the model, but not when something was.

    A model of closed answers has no times to answer with: asked when, it says "no".
    """
    if meaning.kind not in TIMES:
        return None, "; ".join(why)
    return Decided(found=Found(text=f"cannot tell: {why[0]}", about=(), why="no time is noted")), ""


def answer_of(bench: Bench, decided: Decided) -> Answer:
    """An answer that rests on the record, and perhaps on measurements.

    It has no probability: nothing has calibrated one.
    """
    found = decided.found
    evidence = evidence_of(found.about) or tuple(e for f in decided.findings for e in f.evidence)
    notes = (MEASURED_NOTE,) if decided.kind == "measured" else ()
    record, pace = bench.record
    return Answer(
        answer=found.text.replace("_", " "),
        label=to_label(found.text),
        probability=None,
        evidence=evidence,
        consumed=bench.given(),
        steps=found.why,
        record=record,
        warnings=(*bench.session.warnings, *notes),
        pace=pace,
    )


def run(bench: Bench, question: str) -> Iterator[Step | Report]:
    """Answer a question, its parts one after the other; the last item is the report."""
    started = time.perf_counter()
    steps: list[Step] = []
    answers: list[Answer] = []
    parts = parts_of(question)
    if len(parts) > 1:
        steps.append(_plan(f"{len(parts)} questions: {' | '.join(parts)}", {"question": question}))
        yield steps[-1]
    started_clip = time.perf_counter()
    steps.append(_step(bench.describe_clip(), {}, started_clip))
    yield steps[-1]
    for part in parts:
        for item in _one(bench, part):
            if isinstance(item, Answer):
                answers.append(item)
                continue
            steps.append(item)
            yield item
    yield Report(
        answer=joined(answers),
        steps=tuple(steps),
        calls=sum(step.kind != "plan" for step in steps),
        seconds=time.perf_counter() - started,
        planner=NAME,
        asked_model=len(bench.answers),
    )


def _one(bench: Bench, question: str) -> Iterator[Step | Answer]:
    yield _plan(_understood(meaning_of(question)), {"question": question})
    started = time.perf_counter()
    decided, why = decide(bench, question)
    if decided is not None:
        for finding in decided.findings:
            yield _step(finding, _arguments(finding), started)
        found = decided.found
        said = f"{found.text.replace('_', ' ')} ({found.why})"
        finding = Finding(
            tool="look_up", text=said, kind=decided.kind, evidence=evidence_of(found.about)
        )
        yield _step(finding, {"question": question}, started)
        yield answer_of(bench, decided)
        return
    yield _plan(f"the model is asked, for {why}", {"question": question})
    started = time.perf_counter()
    try:
        finding = bench.ask(question)
    except AVQAError as error:
        yield _step(Finding(tool="ask", text=str(error), kind="model"), {}, started, failed=True)
        raise
    yield _step(finding, {"question": question}, started)
    yield bench.answers[-1]


def joined(answers: list[Answer]) -> Answer:
    """The answers of parts as one. Several have no label and no probability together."""
    if len(answers) == 1:
        return answers[0]
    return replace(
        answers[-1],
        answer="; ".join(answer.answer for answer in answers),
        label=NO_ANSWER,
        probability=None,
        alternatives=(),
        evidence=tuple(e for answer in answers for e in answer.evidence),
        steps="; ".join(answer.steps for answer in answers if answer.steps),
        warnings=tuple(dict.fromkeys(w for answer in answers for w in answer.warnings)),
    )


def _understood(meaning: Meaning | None) -> str:
    if meaning is None:
        return "no rule understands the question"
    words = [meaning.kind.replace("_", " "), *([meaning.quantity] if meaning.quantity else [])]
    words += [] if meaning.more else ["(less)"]
    words += [str(t) for t in (meaning.one, meaning.other) if t.name or t.side]
    words += [f"number {meaning.order}" if meaning.order > 0 else "last"] if meaning.order else []
    return f"understood as: {' '.join([*words, *([meaning.side] if meaning.side else [])])}"


def _plan(text: str, arguments: dict[str, str]) -> Step:
    return Step(tool="plan", arguments=dict(arguments), result=text, kind="plan")


def _step(
    finding: Finding, arguments: dict[str, object], started: float, *, failed: bool = False
) -> Step:
    return Step(
        tool=finding.tool,
        arguments=dict(arguments),
        result=finding.text,
        evidence=finding.evidence,
        kind=finding.kind,
        seconds=round(time.perf_counter() - started, 4),
        failed=failed,
    )


def _arguments(finding: Finding) -> dict[str, object]:
    names = ("quantity", "start_s", "end_s", "side", "from_side")
    return {name: finding.data[name] for name in names if name in finding.data}
