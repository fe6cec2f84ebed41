"""`avqa ask` and `avqa demo`: questions about a file, answered in the terminal."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from avqa_llm.errors import AVQAError

if TYPE_CHECKING:
    from avqa_llm.answer import Answer, Consumed, Evidence
    from avqa_llm.engine import LocalEngine
    from avqa_llm.media import Clip
    from avqa_llm.omni.engine import OmniEngine

SAMPLES = Path(__file__).resolve().parent.parent / "app" / "samples"


def run(args: argparse.Namespace) -> int:
    """`avqa ask FILE QUESTION [QUESTION ...]`: later questions follow up on earlier ones."""
    from avqa_llm.devices import prepare_cpu
    from avqa_llm.engine import load_engine

    prepare_cpu()
    started = time.perf_counter()
    engine = load_engine(args.model, cache=True, features=args.features)
    loaded = time.perf_counter()
    clip = engine.read(args.file, reader=args.reader)
    times = {"load": loaded - started, "decode": time.perf_counter() - loaded}
    if args.mute:
        clip = clip.muted()
    if args.blank:
        clip = clip.blanked()
    facts = measured(engine, clip, args.model) if args.facts else ""
    answers = converse(engine, clip, args.questions, facts=facts, open_ended=args.open, times=times)
    if args.json:
        _print_json(args.questions, answers)
        return 0
    for note in clip.notes:
        print(f"note: {note}")
    if facts:
        print(f"told to the model: {facts}")
    for number, (question, answer) in enumerate(zip(args.questions, answers, strict=True)):
        print("\n".join(describe(question, answer, with_record=number == 0)), flush=True)
    return 0


def measured(engine: LocalEngine | OmniEngine, clip: Clip, model: str) -> str:
    """What is measured of the clip's sound, as text for the model.

    Raises:
        AVQAError: the model cannot read it.
    """
    from avqa_llm.acoustics import facts_of

    if not engine.reads_text:
        raise AVQAError(
            f"--facts: the model {model} reads a clip and a question and no other text; ask an "
            "omni model, or see the facts yourself with avqa listen"
        )
    return facts_of(clip).text()


def converse(
    engine: LocalEngine,
    clip: Clip,
    questions: list[str],
    *,
    facts: str,
    open_ended: bool,
    times: dict[str, float],
) -> Iterator[Answer]:
    """Answers one after the other, each with what was said before as its history.

    Facts stand before the first question, and so in the history of the others.
    """
    from avqa_llm.engine import Session

    session = Session(engine, clip, times=times)
    for number, question in enumerate(questions):
        told = f"{facts}\n{question}" if facts and not number else question
        yield session.ask(told, open_ended=open_ended)


def _print_json(questions: list[str], answers: Iterator[Answer]) -> None:
    rows = [
        {"question": question, **answer.to_json()}
        for question, answer in zip(questions, answers, strict=True)
    ]
    json.dump(rows[0] if len(rows) == 1 else rows, sys.stdout, indent=2)
    print()


def describe(question: str, answer: Answer, *, with_record: bool) -> Iterator[str]:
    """An answer as lines for a person."""
    yield ""
    yield f"  {question}"
    yield f"  → {answer.answer}{_sure(answer)}"
    if answer.steps:
        yield f"    looked up: {answer.steps}"
    for modality, verb in (("sound", "listened"), ("picture", "looked")):
        places = [_place(e) for e in answer.evidence if e.modality == modality]
        if places:
            yield f"    {verb} at: {'; '.join(places)}"
    seconds = sum(answer.timing_s.values())
    yield f"    consumed: {_used(answer.consumed)}; {seconds:.2f} s"
    if with_record and answer.record:
        yield f"    events it wrote down: {answer.record}"
    for warning in answer.warnings:
        yield f"    ! {warning}"


def _sure(answer: Answer) -> str:
    if answer.probability is None:
        return ""
    return f"   ({answer.probability:.0%} sure{_others(answer)})"


def _used(consumed: Consumed | None) -> str:
    if consumed is None:
        return "unknown"
    sound = f"{consumed.sound_tokens} tokens of sound" if consumed.sound else "no sound"
    picture = f"{consumed.picture_tokens} tokens of picture" if consumed.picture else "no picture"
    return f"{sound}, {picture}"


def _others(answer: Answer) -> str:
    others = [f"{o.label} {o.probability:.0%}" for o in answer.alternatives[:2]]
    return f"; next: {', '.join(others)}" if others else ""


def _place(evidence: Evidence) -> str:
    span = f"{evidence.start_s:.1f}-{evidence.end_s:.1f} s"
    if evidence.region is None:
        return f"{span} ({evidence.weight:.0%})"
    left, _, right, _ = evidence.region
    return f"{span}, {left:.0%}-{right:.0%} from the left ({evidence.weight:.0%})"


def run_demo(args: argparse.Namespace) -> int:
    """`avqa demo`: the bundled sample clips with questions whose answers are known."""
    from avqa_llm.devices import prepare_cpu
    from avqa_llm.engine import Session, load_engine

    listing = SAMPLES / "samples.json"
    if not listing.exists():
        raise AVQAError(f"the sample clips are missing: {listing} does not exist")
    prepare_cpu()
    engine = load_engine(args.model)
    right = total = 0
    for sample in json.loads(listing.read_text()):
        path = SAMPLES / sample["file"]
        print(f"\n{path.name}: {sample['about']}")
        session = Session(engine, engine.read(path))
        for number, asked in enumerate(sample["questions"]):
            answer = session.ask(asked["question"], remember=False)
            for line in describe(asked["question"], answer, with_record=number == 0):
                print(line, flush=True)
            hit = answer.label == asked["answer"]
            right, total = right + hit, total + 1
            print(f"    the truth: {asked['answer']} {'✓' if hit else '✗'}")
    print(f'\n{right} of {total} answers are right. Your own: avqa ask FILE "QUESTION"')
    return 0
