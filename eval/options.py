"""The commands of `python -m eval` and their options."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from avqa_llm.cli import Subparsers

NAMES = (
    "music-avqa",
    "music-avqa-v2",
    "music-avqa-r",
    "fortisavqa",
    "avqa",
    "bandstand",
    "bandstand-r",
    "bandstand-biased",
    "bandstand-hard",
)


def add_benchmarks(commands: Subparsers[argparse.ArgumentParser]) -> None:
    new = commands.add_parser(
        "benchmarks", help="what can be evaluated on, what is on disk, how to get the rest"
    )
    new.add_argument("--data", metavar="DIR", type=Path, help="where your files lie")
    new.set_defaults(target="eval.listing:run")


def add_floor(commands: Subparsers[argparse.ArgumentParser]) -> None:
    new = commands.add_parser(
        "floor",
        help="the accuracy that needs neither sound nor picture",
        description="Print the blind floor: answer each question with what is most frequent for "
        "its template and values, its template, its type, or of all, counted in another file.",
    )
    new.add_argument("--benchmark", choices=NAMES, help="default: told from the file")
    _annotations(new, required=True)
    new.add_argument("--fit", metavar="FILE", type=Path, required=True, help=_FIT)
    _parent(new)
    new.set_defaults(target="eval.floors:run")


def add_run(commands: Subparsers[argparse.ArgumentParser]) -> None:
    new = commands.add_parser(
        "run",
        help="let a model answer a benchmark, and score it",
        description="Let a model answer a benchmark. Answers go to OUT/samples.jsonl chunk by "
        "chunk, scores to OUT/results.json; a run that was killed goes on where it was.",
    )
    new.add_argument("--benchmark", choices=NAMES, required=True)
    _annotations(new, required=False, more="; Bandstand is made on first use")
    new.add_argument("--media", metavar="DIR", type=Path, help="holds VIDEO_ID.mp4 of each clip")
    _known_files(new)
    new.add_argument("--out", metavar="DIR", type=Path, required=True, help="where to write")
    _model(new)
    what = new.add_argument_group("what is asked")
    what.add_argument(
        "--probes", metavar="NAMES", default="", help="robustness probes: all, or names with commas"
    )
    what.add_argument("--limit", metavar="N", type=positive, help="the first N questions only")
    what.add_argument(
        "--subset", metavar="N", type=positive, help="N questions, each type by its share"
    )
    what.add_argument(
        "--shard", metavar="I/N", type=_shard, default=(1, 1), help="part I of N; then merge"
    )
    what.add_argument("--mute", action="store_true", help="take the sound away")
    what.add_argument("--blank", action="store_true", help="take the picture away")
    what.add_argument(
        "--no-evidence", dest="evidence", action="store_false", help="write down no evidence"
    )
    what.add_argument(
        "--clips", metavar="N", type=positive, default=40, help="Bandstand: so many clips (40)"
    )
    _workers(new, "processes that answer (default: one a core)")
    new.set_defaults(target="eval.start:run")


def _model(parser: argparse.ArgumentParser) -> None:
    from eval.engines.load import MODES

    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="PRESET|DIR|vllm:PRESET|vllm:DIR|agent:PRESET|agent:DIR|openai:NAME|oracle",
        default="tiny",
        help="a preset, a model directory, either with its language model in vLLM (started, or at "
        "--base-url) or with the agent that plans by rules around it, a model behind a server, or "
        "on Bandstand the oracle, which answers from the truth (default: %(default)s)",
    )
    group.add_argument(
        "--mode",
        choices=MODES,
        help="rank the answers by likelihood (default), or generate text and score it (servers)",
    )
    group.add_argument(
        "--features",
        metavar="DIR",
        type=Path,
        help="what `avqa features` made of the clips: encoders need not run again",
    )
    _server(parser.add_argument_group("a model behind a server"))


def _server(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--base-url", metavar="URL", help="such as http://127.0.0.1:8000/v1")
    group.add_argument(
        "--api-key-env",
        metavar="NAME",
        default="OPENAI_API_KEY",
        help="environment variable with the server's key (%(default)s)",
    )
    group.add_argument("--concurrency", metavar="N", type=positive, default=4, help="requests (4)")
    group.add_argument("--retries", metavar="N", type=positive, default=5, help="a request (5)")
    group.add_argument("--per-minute", metavar="N", type=positive, help="requests at most")
    group.add_argument("--timeout", metavar="S", type=positive, default=120, help="seconds (120)")
    group.add_argument("--frames", metavar="N", type=positive, default=16, help="of a clip (16)")
    group.add_argument("--max-side", metavar="N", type=positive, default=448, help="pixels (448)")
    group.add_argument(
        "--picture", choices=("video", "images"), default="video", help="how it is sent (video)"
    )
    group.add_argument(
        "--sound",
        choices=("input_audio", "audio_url"),
        default="input_audio",
        help="how it is sent (input_audio)",
    )
    group.add_argument(
        "--most-tokens",
        metavar="N",
        type=positive,
        default=32,
        help="of an answer (32); a model that thinks first needs more",
    )


def add_score(commands: Subparsers[argparse.ArgumentParser]) -> None:
    new = commands.add_parser(
        "score",
        help="score anybody's predictions",
        description="Score a JSONL file of predictions: a row {video_id, question_id, answer} for "
        "each question. Missing, unknown and double rows are errors.",
    )
    new.add_argument("--benchmark", choices=NAMES, required=True)
    _annotations(new, required=True)
    new.add_argument("--predictions", metavar="FILE.jsonl", type=Path, required=True)
    _known_files(new)
    new.add_argument("--out", metavar="DIR", type=Path, required=True, help="where to write")
    new.add_argument("--partial", action="store_true", help="score what is there, and say how much")
    new.set_defaults(target="eval.predictions:run")


def add_merge(commands: Subparsers[argparse.ArgumentParser]) -> None:
    new = commands.add_parser(
        "merge",
        help="join the shards of a run",
        description="Join the shards of a run. Where files lie elsewhere than they did for the "
        "first shard, name them.",
    )
    new.add_argument("shards", metavar="SHARD", nargs="+", type=Path, help="folders of `run`")
    _annotations(new, required=False)
    new.add_argument("--media", metavar="DIR", type=Path, help="holds VIDEO_ID.mp4 of each clip")
    _known_files(new)
    new.add_argument("--out", metavar="DIR", type=Path, required=True, help="where to write")
    new.set_defaults(target="eval.merge:run")


def add_sets(commands: Subparsers[argparse.ArgumentParser]) -> None:
    new = commands.add_parser(
        "sets",
        help="make all sets of Bandstand from one seed, with their hashes",
        description="Write a folder for each Bandstand set and OUT/manifest.json with the SHA-256 "
        "of every file. With --check, sets that are there stay as they are and are compared with "
        "the hashes kept in the repository, and an oracle answers their questions.",
    )
    new.add_argument("out", metavar="OUT", type=Path, help="where to write")
    _seed(new)
    new.add_argument(
        "--clips", metavar="N", type=positive, help="of each set (default: as `headline` needs)"
    )
    new.add_argument(
        "--only", metavar="NAME", action="append", help="this set only; may be given several times"
    )
    _workers(new, "processes that write clips (default: one a core)")
    new.add_argument(
        "--media", action=argparse.BooleanOptionalAction, default=False, help="clips too (no)"
    )
    new.add_argument("--check", action="store_true", help="compare, and say what differs")
    new.set_defaults(target="eval.sets:run")


def add_headline(commands: Subparsers[argparse.ArgumentParser]) -> None:
    new = commands.add_parser(
        "headline",
        help="every figure of a model on Bandstand in one table",
        description="Make the Bandstand sets, let a model answer them: whole, without sound, "
        "without picture, in all wordings, biased and hard; and write one table. What is "
        "finished is used again.",
    )
    new.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("runs/headline"), help="(%(default)s)"
    )
    _seed(new)
    new.add_argument(
        "--clips",
        metavar="N",
        type=positive,
        default=200,
        help="of the balanced set; the others in proportion (%(default)s)",
    )
    _model(new)
    _workers(new, "processes that write clips and answer (default: one a core)")
    new.set_defaults(target="eval.headline:run")


def _seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", metavar="S", type=int, default=61, help="(%(default)s)")


def _workers(parser: argparse.ArgumentParser, about: str) -> None:
    parser.add_argument(
        "--workers", metavar="N", type=positive, default=os.cpu_count() or 1, help=about
    )


def add_table(commands: Subparsers[argparse.ArgumentParser]) -> None:
    new = commands.add_parser(
        "table",
        help="print finished runs side by side",
        description="Print finished runs side by side, with video-clustered 95 % intervals and "
        "each one's paired difference to the first.",
    )
    new.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="a finished folder")
    new.set_defaults(target="eval.tables:run")


def add_report(commands: Subparsers[argparse.ArgumentParser]) -> None:
    new = commands.add_parser(
        "report",
        help="write a page to read, with plots and every error",
        description="Write RUN/report.html, one file that needs no network, and RUN/report.md. "
        "Several runs are compared with the first.",
    )
    new.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="a finished folder")
    new.add_argument("--out", metavar="DIR", type=Path, help="default: the first run's folder")
    new.set_defaults(target="eval.report:run")


def add_export(commands: Subparsers[argparse.ArgumentParser]) -> None:
    new = commands.add_parser("export", help="write a benchmark for lmms-eval or Hugging Face")
    new.add_argument("--to", choices=("lmms-eval", "huggingface"), required=True)
    new.add_argument("--benchmark", choices=NAMES, required=True)
    _annotations(new, required=True)
    new.add_argument("--media", metavar="DIR", type=Path, required=True)
    new.add_argument("--out", metavar="DIR", type=Path, required=True, help="where to write")
    new.add_argument("--copy-media", action="store_true", help="clips too, not only their names")
    new.add_argument(
        "--private",
        action="store_true",
        help="for yourself: MUSIC-AVQA-R and FortisAVQA must not be passed on",
    )
    new.set_defaults(target="eval.exports:run")


def add_evidence(commands: Subparsers[argparse.ArgumentParser]) -> None:
    new = commands.add_parser(
        "evidence",
        help="does an answer rest on the evidence that it cites?",
        description="Hide the cited evidence, and as much elsewhere, and compare how far the "
        "answer's probability falls.",
    )
    new.add_argument("--annotations", metavar="FILE", type=Path, required=True)
    new.add_argument("--media", metavar="DIR", type=Path, required=True)
    new.add_argument("--model", metavar="PRESET|DIR", default="tiny")
    new.add_argument("--limit", metavar="N", type=positive, default=200, help="clips (200)")
    new.add_argument(
        "--questions", metavar="N", type=positive, default=4, help="about each clip (4)"
    )
    new.add_argument("--out", metavar="FILE.json", type=Path)
    new.set_defaults(target="eval.deletion:run")


def add_calibrate(commands: Subparsers[argparse.ArgumentParser]) -> None:
    new = commands.add_parser(
        "calibrate",
        help="make a model's probabilities honest, with questions it never learned from",
        description="Let a model answer validation questions about whole clips, learn from its "
        "mistakes how sure it may be, and write that (a few numbers) into its avqa.json. The "
        "answers stay the same. Muted and blanked clips are judged by the same numbers.",
    )
    new.add_argument("--model", metavar="PRESET|DIR", required=True)
    new.add_argument("--annotations", metavar="FILE", type=Path, help="no test questions")
    new.add_argument("--media", metavar="DIR", type=Path, help="holds VIDEO_ID.mp4 of each clip")
    new.add_argument("--limit", metavar="N", type=positive, default=300, help="clips (300)")
    new.add_argument("--dry-run", action="store_true", help="say what it gives, write nothing")
    new.add_argument("--remove", action="store_true", help="take a calibration out of a model")
    new.set_defaults(target="eval.calibrate:run")


_FIT = "where the blind floor counts answers: a training or validation file"


def _annotations(parser: argparse.ArgumentParser, *, required: bool, more: str = "") -> None:
    parser.add_argument(
        "--annotations",
        metavar="FILE",
        type=Path,
        required=required,
        help=f"the questions, as their authors give them{more}",
    )


def _known_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fit", metavar="FILE", type=Path, help=_FIT)
    parser.add_argument(
        "--train", metavar="FILE", type=Path, help="what the model was trained on, for the overlap"
    )
    _parent(parser)


def _parent(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--parent",
        metavar="FILE",
        type=Path,
        help="test file of MUSIC-AVQA v1: it lends R and FortisAVQA their templates",
    )


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _shard(text: str) -> tuple[int, int]:
    which, slash, of = text.partition("/")
    if not (slash and which.isdecimal() and of.isdecimal() and 1 <= int(which) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard: write 2/4 for the second of four")
    return int(which), int(of)
