"""The `avqa` command: `ask`, `listen`, `demo`, `serve`, `features`, `train`, `export`, `doctor`.

Only the standard library is imported here. A command names the function that carries it out
as `module:function`, and that module is imported when the command runs, so that `avqa --help`
does not wait for torch.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from avqa_llm.errors import AVQAError

PROG = "avqa"
USER_ERROR = 2
INTERRUPTED = 130  # what shells report for a process ended by Ctrl-C
BROKEN_PIPE = 141  # likewise for one whose reader went away

Subparsers = argparse._SubParsersAction  # argparse has no public name for it


class _VersionAction(argparse.Action):
    """Print the version and exit. The lookup reads package metadata, so it waits for the flag."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version("avqa-llm")
        except PackageNotFoundError:
            found = "(not installed: run from a checkout)"
        print(f"{PROG} {found}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line.

    The parsed namespace carries the arguments under their own names, and in `target` the
    `module:function` that takes it and returns an exit status (None counts as 0).
    """
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="Ask a video with sound a question; get an answer with its evidence.",
        epilog=f"Each command has its own help: {PROG} ask --help",
    )
    parser.add_argument(
        "--version",
        action=_VersionAction,
        nargs=0,
        default=argparse.SUPPRESS,
        help="print the version and exit",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_ask(commands)
    _add_listen(commands)
    _add_agent(commands)
    _add_demo(commands)
    _add_serve(commands)
    _add_features(commands)
    _add_train(commands)
    _add_export(commands)
    _add_doctor(commands)
    return parser


def _add_ask(commands: Subparsers[argparse.ArgumentParser]) -> None:
    ask = commands.add_parser(
        "ask",
        help="answer questions about a video or sound file",
        description="Answer questions about one media file. Several questions share its decoding "
        "and encoding, and each sees the ones before it.",
    )
    ask.add_argument("file", metavar="FILE", type=Path, help="a video or sound file")
    ask.add_argument("questions", metavar="QUESTION", nargs="+", help="in quotes")
    _add_model(ask)
    ask.add_argument("--json", action="store_true", help="print one JSON object a question")
    ask.add_argument(
        "--reader",
        choices=("pyav", "decord"),
        default="pyav",
        help="what decodes the file (default: %(default)s; decord needs the extra of that name)",
    )
    ask.add_argument(
        "--features", metavar="DIR", type=Path, help="a store of `avqa features` to look in first"
    )
    ask.add_argument("--mute", action="store_true", help="answer as if there were no sound")
    ask.add_argument("--blank", action="store_true", help="answer as if there were no picture")
    ask.add_argument(
        "--open", action="store_true", help="answer in free text, not from the closed answer set"
    )
    ask.add_argument(
        "--facts",
        action="store_true",
        help="tell the model what `avqa listen` measures; for omni models, which read text",
    )
    ask.set_defaults(target="avqa_llm.asking:run")


def _add_listen(commands: Subparsers[argparse.ArgumentParser]) -> None:
    listen = commands.add_parser(
        "listen",
        help="measure the sound of a file: loudness, onsets, tempo, pitch, silences",
        description="Measure the sound of one media file, without a model. With --speech also what "
        "is said in it, by Whisper.",
    )
    listen.add_argument("file", metavar="FILE", type=Path, help="a video or sound file")
    listen.add_argument("--from", metavar="S", type=float, dest="start_s", help="second to start")
    listen.add_argument("--to", metavar="S", type=float, dest="end_s", help="second to end")
    listen.add_argument(
        "--speech",
        metavar="MODEL",
        help="a Whisper model's name (base) or folder, to write down what is said",
    )
    listen.add_argument("--json", action="store_true", help="print one JSON object")
    listen.set_defaults(target="avqa_llm.listening:run")


def _add_agent(commands: Subparsers[argparse.ArgumentParser]) -> None:
    agent = commands.add_parser(
        "agent",
        help="answer a question in steps that can be checked",
        description="Answer one question by an agent: it looks up what the model noted, measures "
        "the sound, asks the model about parts, and shows each step. Rules plan; with --llm and "
        "--base-url a language model does.",
    )
    agent.add_argument("file", metavar="FILE", type=Path, help="a video or sound file")
    agent.add_argument("question", metavar="QUESTION", help="in quotes")
    _add_model(agent)
    agent.add_argument("--llm", metavar="NAME", help="a language model that can call tools")
    agent.add_argument(
        "--base-url", metavar="URL", help="of its OpenAI-compatible server; gets text, no media"
    )
    agent.add_argument(
        "--api-key-env",
        metavar="NAME",
        default="OPENAI_API_KEY",
        help="environment variable with the server's key (default: %(default)s)",
    )
    agent.add_argument(
        "--max-calls", metavar="N", type=int, default=12, help="of tools (default: %(default)s)"
    )
    agent.add_argument(
        "--max-seconds", metavar="S", type=float, default=120.0, help="(default: %(default)s)"
    )
    agent.add_argument(
        "--speech", metavar="MODEL|DIR", help="a Whisper model, to tell what is said"
    )
    agent.add_argument("--json", action="store_true", help="print one JSON object")
    agent.set_defaults(target="avqa_llm.agent.command:run")


def _add_demo(commands: Subparsers[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="ask the bundled sample clips a few questions",
        description="Ask the bundled sample clips a few questions, to see what an answer holds.",
    )
    _add_model(demo)
    demo.set_defaults(target="avqa_llm.asking:run_demo")


def _add_serve(commands: Subparsers[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser(
        "serve",
        help="answer many people over HTTP, in OpenAI's protocol",
        description="Serve a model over HTTP, in OpenAI's protocol: with a vLLM that is started "
        "and watched, or without it in this process. docs/SERVING.md has the rest.",
        usage="%(prog)s [options] [-- options of vLLM]",
    )
    _add_model(serve)
    serve.add_argument(
        "--name", help="under which it is served (default: the preset's or folder's)"
    )
    serve.add_argument(
        "--adapter",
        metavar="NAME=DIR",
        action="append",
        default=[],
        help="another adapter of the same base, served as NAME; repeatable",
    )
    serve.add_argument(
        "--engine",
        choices=("local", "vllm"),
        help="what generates (default: vllm where it is installed, else local)",
    )
    serve.add_argument("--host", default="127.0.0.1", help="to listen on (default: %(default)s)")
    serve.add_argument(
        "--port", type=int, default=8000, help="0: a free one (default: %(default)s)"
    )
    serve.add_argument(
        "--keys", metavar="FILE", type=Path, help="hashes of API keys; needed beyond this machine"
    )
    serve.add_argument(
        "--admin-keys",
        metavar="FILE",
        type=Path,
        help="hashes of keys that may add and remove adapters",
    )
    serve.add_argument(
        "--adapters-folder",
        metavar="DIR",
        type=Path,
        help="where adapters must lie that are added while it runs",
    )
    serve.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="a host that media may be fetched from; repeatable (default: none is)",
    )
    serve.add_argument(
        "--store", metavar="DIR", type=Path, help="features and uploads (default: the user's cache)"
    )
    serve.add_argument(
        "--rate",
        metavar="PER_S",
        type=float,
        help="requests a second of one key or address in the long run (default: 20; 0: any)",
    )
    serve.add_argument(
        "--check", action="store_true", help="say what is missing and what mends it, and end"
    )
    serve.add_argument(
        "--vllm-python", metavar="PATH", type=Path, help="interpreter with vLLM (AVQA_VLLM_PYTHON)"
    )
    serve.add_argument(
        "--vllm-port", metavar="N", type=int, default=0, help="of the vLLM that is started"
    )
    serve.add_argument(
        "--vllm-url",
        metavar="URL",
        help="a vLLM of another `avqa serve`, to share it; both need its key in AVQA_VLLM_KEY",
    )
    serve.add_argument("more", nargs="*", help=argparse.SUPPRESS)
    serve.set_defaults(target="avqa_llm.serving.command:run")


def _add_features(commands: Subparsers[argparse.ArgumentParser]) -> None:
    features = commands.add_parser(
        "features",
        help="run the frozen encoders over a folder of media, once",
        description="Run a model's frozen encoders over a folder of media and keep what comes out "
        "for training, evaluation and serving. It can be killed at any moment: the same command "
        "goes on. Several may fill one store at once.",
    )
    features.add_argument(
        "source", metavar="FOLDER|LIST", type=Path, help="media, or a file that names some, a line"
    )
    _add_model(features, "a preset, a model directory or a recipe (default: %(default)s)")
    features.add_argument("--out", metavar="DIR", type=Path, required=True, help="the store")
    features.add_argument(
        "--rows",
        metavar="FILE.jsonl",
        type=Path,
        help="instruction data: encode the clips of FOLDER that it asks for, cut as it says",
    )
    features.add_argument(
        "--workers", metavar="N", type=int, default=1, help="processes (default: %(default)s)"
    )
    features.add_argument(
        "--dtype",
        choices=("float16", "int8", "float32"),
        help="how values are kept (default: as the store has them already, else float16)",
    )
    features.add_argument(
        "--shard-mb",
        metavar="N",
        type=float,
        default=256,
        help="size of a file of the store (default: %(default)s)",
    )
    features.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: on the machines of a Ray cluster (default: %(default)s)",
    )
    features.add_argument(
        "--skip-broken",
        action="store_true",
        help="exit with 0 although files could not be read; they are named all the same",
    )
    features.set_defaults(target="avqa_llm.featuring:run")


def _add_train(commands: Subparsers[argparse.ArgumentParser]) -> None:
    train = commands.add_parser(
        "train",
        help="train an adapter from a recipe",
        description="Train an adapter from a recipe. A run can be killed at any moment and "
        "continued with --resume.",
    )
    train.add_argument("recipe", metavar="RECIPE", type=Path, help="a YAML file")
    train.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    train.add_argument(
        "--dry-run",
        action="store_true",
        help="check recipe and data, count weights, estimate memory and time; train nothing",
    )
    train.add_argument(
        "--out", metavar="DIR", type=Path, help="where to write (default: what the recipe says)"
    )
    train.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="another value for a key of the recipe, such as instruct.loop.steps=200; repeatable",
    )
    train.set_defaults(target="avqa_llm.training.run:run")


def _add_export(commands: Subparsers[argparse.ArgumentParser]) -> None:
    export = commands.add_parser(
        "export",
        help="write a trained model so that peft, transformers and vLLM load it",
        description="Write a model directory anew: its adapter as plain peft, or merged into the "
        f"language model's weights. `{PROG} ask --model OUT` works with both.",
    )
    export.add_argument("model", metavar="PRESET|DIR", help="a preset's name or a model directory")
    export.add_argument("--out", metavar="OUT", type=Path, required=True, help="must not exist yet")
    export.add_argument(
        "--merge", action="store_true", help="merge LoRA into the weights: OUT/llm is a checkpoint"
    )
    export.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="of merged weights (default: as the base stores them)",
    )
    export.add_argument(
        "--base",
        choices=("float", "dequantized"),
        help="what to merge an adapter into that was trained over quantised weights",
    )
    export.set_defaults(target="avqa_llm.exporting:run")


def _add_doctor(commands: Subparsers[argparse.ArgumentParser]) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="say what is installed and whether a question could be answered",
        description=f"Say what is installed, which devices there are, and whether `{PROG} ask` "
        "would work. Exit status 0 if it would, 1 if not.",
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.set_defaults(target="avqa_llm.doctor:run")


def _add_model(
    parser: argparse.ArgumentParser,
    what: str = "a preset's name or a model directory (default: %(default)s)",
) -> None:
    parser.add_argument("--model", metavar="PRESET|DIR", default="tiny", help=what)


def run_command(args: argparse.Namespace) -> int:
    """Import the function that `args.target` names, call it with `args`, return its status."""
    module_name, function_name = args.target.split(":")
    status = getattr(importlib.import_module(module_name), function_name)(args)
    return 0 if status is None else int(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `avqa` command line and return its exit status.

    A fault of the input is one line on standard error and status 2; Ctrl-C is one line and
    130; a reader that goes away (`avqa ask … | head -1`) is silence and 141. Any other
    exception is a bug of ours and keeps its traceback.
    """
    try:
        status = run_command(build_parser().parse_args(argv))
        sys.stdout.flush()  # a closed pipe must show up here, not at interpreter exit
    except AVQAError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(f"{PROG}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes standard output once more on its way out; give it a place.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return status
