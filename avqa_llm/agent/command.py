"""`avqa agent`: one question, answered by an agent that shows its steps."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING

from avqa_llm.errors import AgentError

if TYPE_CHECKING:
    from avqa_llm.agent import Agent, Report, Step

_MARKS = {"measured": "measured", "model": "model says", "transcript": "voice", "plan": "plan"}


def run(args: argparse.Namespace) -> int:
    """`avqa agent FILE QUESTION`: steps as they happen, then the answer."""
    from avqa_llm.agent import Report
    from avqa_llm.devices import prepare_cpu
    from avqa_llm.engine import load_engine

    if (args.llm is None) != (args.base_url is None):
        raise AgentError("--llm and --base-url go together: a model's name and where it is served")
    prepare_cpu()
    engine = load_engine(args.model, cache=True)
    agent = _agent(engine, args)
    clip = engine.read(args.file)
    if not args.json:
        for note in clip.notes:
            print(f"note: {note}")
    for item in agent.run(clip, args.question):
        if isinstance(item, Report):
            _print_report(args, item)
        elif not args.json:
            print(step_line(item), flush=True)
    return 0


def _agent(engine: object, args: argparse.Namespace) -> Agent:
    from avqa_llm.agent import Agent
    from avqa_llm.agent.served import Budget

    if args.llm is None:
        return Agent.rules(engine, speech=args.speech)
    return Agent.served(
        engine,
        base_url=args.base_url,
        llm=args.llm,
        key=os.environ.get(args.api_key_env, ""),
        budget=Budget(calls=args.max_calls, seconds=args.max_seconds),
        speech=args.speech,
    )


def step_line(step: Step) -> str:
    """A step as one line of a terminal."""
    said = ", ".join(f"{value}" for value in step.arguments.values() if value is not None)
    called = "" if step.kind == "plan" else f" {step.tool}({said}):"
    return f"  [{_MARKS[step.kind]}]{called} {step.result}"


def _print_report(args: argparse.Namespace, report: Report) -> None:
    from avqa_llm.asking import describe

    if args.json:
        print(json.dumps({"question": args.question, **report.to_json()}, ensure_ascii=False))
        return
    print("\n".join(describe(args.question, report.answer, with_record=True)))
    asked = f"{report.asked_model} of them asked the model"
    print(f"    planned by {report.planner}: {report.calls} calls, {asked}; {report.seconds:.2f} s")
