"""`python -m eval`: heavy imports wait for the command that needs them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from avqa_llm.cli import BROKEN_PIPE, INTERRUPTED, USER_ERROR, Subparsers, run_command
from avqa_llm.errors import AVQAError

PROG = "python -m eval"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; the namespace names in `target` what carries the command out."""
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="How good are the answers, and how far can they be trusted?",
        epilog=f"Each command has its own help: {PROG} run --help",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_floor(commands)
    _add_run(commands)
    _add_table(commands)
    _add_evidence(commands)
    return parser


def _add_floor(commands: Subparsers[argparse.ArgumentParser]) -> None:
    floor = commands.add_parser(
        "floor",
        help="the accuracy that needs neither sound nor picture",
        description="Print the blind floor: answer each question with what is most frequent for "
        "its template, its type, or of all, counted in another file.",
    )
    _add_files(floor)
    floor.set_defaults(target="eval.floors:run")


def _add_run(commands: Subparsers[argparse.ArgumentParser]) -> None:
    run = commands.add_parser(
        "run",
        help="let a model answer a question file, and score it",
        description="Let a model answer a question file. Answers go to OUT/samples.jsonl clip by "
        "clip, scores to OUT/results.json; a run that was killed goes on where it was.",
    )
    _add_files(run)
    run.add_argument(
        "--media", metavar="DIR", type=Path, required=True, help="holds VIDEO_ID.mp4 of each clip"
    )
    run.add_argument("--out", metavar="DIR", type=Path, required=True, help="where to write")
    run.add_argument(
        "--model",
        metavar="PRESET|DIR",
        default="tiny",
        help="a preset's name or a model directory (default: %(default)s)",
    )
    run.add_argument("--mute", action="store_true", help="take the sound away")
    run.add_argument("--blank", action="store_true", help="take the picture away")
    run.add_argument(
        "--limit", metavar="N", type=_positive, help="only the first N questions of the file"
    )
    run.set_defaults(target="eval.runner:run")


def _add_table(commands: Subparsers[argparse.ArgumentParser]) -> None:
    table = commands.add_parser(
        "table",
        help="print finished runs side by side",
        description="Print finished runs side by side, with video-clustered 95 % intervals and "
        "each one's paired difference to the first.",
    )
    table.add_argument(
        "runs", metavar="RUN", nargs="+", type=Path, help="a folder that `run` wrote"
    )
    table.set_defaults(target="eval.report:run")


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--annotations", metavar="FILE", type=Path, required=True, help="the questions to score"
    )
    parser.add_argument(
        "--fit",
        metavar="FILE",
        type=Path,
        required=True,
        help="where the blind floor counts answers: a training or validation file",
    )


def _add_evidence(commands: Subparsers[argparse.ArgumentParser]) -> None:
    evidence = commands.add_parser(
        "evidence",
        help="does an answer rest on the evidence that it cites?",
        description="Hide the cited evidence, and as much elsewhere, and compare how far the "
        "answer's probability falls. One question a clip.",
    )
    evidence.add_argument("--annotations", metavar="FILE", type=Path, required=True)
    evidence.add_argument("--media", metavar="DIR", type=Path, required=True)
    evidence.add_argument("--model", metavar="PRESET|DIR", default="tiny")
    evidence.add_argument("--limit", metavar="N", type=_positive, default=200, help="clips (200)")
    evidence.add_argument(
        "--questions", metavar="N", type=_positive, default=4, help="about each clip (4)"
    )
    evidence.add_argument("--out", metavar="FILE.json", type=Path)
    evidence.set_defaults(target="eval.deletion:run")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status, with the statuses of `avqa`."""
    try:
        status = run_command(build_parser().parse_args(argv))
        sys.stdout.flush()  # a closed pipe must show up here, not at interpreter exit
    except AVQAError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(f"{PROG}: interrupted; the same command goes on where it was", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes standard output once more on its way out; give it a place.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return status


if __name__ == "__main__":
    sys.exit(main())
