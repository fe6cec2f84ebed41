"""`python -m eval`: heavy imports wait for the command that needs them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from avqa_llm.cli import BROKEN_PIPE, INTERRUPTED, USER_ERROR, run_command
from avqa_llm.errors import AVQAError
from eval import options

PROG = "python -m eval"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; the namespace names in `target` what carries the command out."""
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="How good are the answers, and how far can they be trusted?",
        epilog=f"Each command has its own help: {PROG} run --help",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        options.add_benchmarks,
        options.add_floor,
        options.add_sets,
        options.add_headline,
        options.add_run,
        options.add_merge,
        options.add_score,
        options.add_table,
        options.add_report,
        options.add_evidence,
        options.add_calibrate,
        options.add_export,
    ):
        add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status, with the statuses of `avqa`."""
    try:
        status = run_command(build_parser().parse_args(argv))
        sys.stdout.flush()  # a closed pipe must show up here, not at interpreter exit
    except AVQAError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:
        # The interpreter flushes standard output once more on its way out; give it a place.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        print(f"{PROG}: {error.filename}: {error.strerror or error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(f"{PROG}: interrupted; the same command goes on where it was", file=sys.stderr)
        return INTERRUPTED
    return status


if __name__ == "__main__":
    sys.exit(main())
