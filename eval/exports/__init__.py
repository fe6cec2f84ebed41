"""Benchmarks for other harnesses: a task of lmms-eval, or a folder of Hugging Face `datasets`."""

from __future__ import annotations

import argparse
import json

from eval.benchmarks import read_benchmark
from eval.exports.hf import export_hf
from eval.exports.lmms_eval import export_lmms, task_name
from eval.exports.rows import TEST
from eval.samples import RunError


def run(args: argparse.Namespace) -> None:
    """Carry out `python -m eval export`."""
    if args.to == "lmms-eval" and args.copy_media:
        raise RunError(
            "--copy-media is for --to huggingface: a task of lmms-eval reads the clips where they "
            "are, in --media or in the folder that AVQA_MEDIA names; leave it out"
        )
    asked = read_benchmark(args.benchmark, args.annotations)
    if args.to == "lmms-eval":
        export_lmms(asked, args.media, args.out, private=args.private)
    else:
        export_hf(asked, args.media, args.out, copy_media=args.copy_media, private=args.private)
    with (args.out / TEST).open(encoding="utf-8") as file:
        clips = [json.loads(line)["video"] for line in file]
    print(f"{len(clips):,} questions about {len(set(clips)):,} clips in {args.out}")
    left_out = len(asked.questions) - len(clips)
    if left_out:
        print(f"{left_out:,} questions are left out; {args.out / 'README.md'} says why")
    if args.to == "lmms-eval":
        print(
            f"Run it: lmms-eval eval --model MODEL --tasks {task_name(args.benchmark)} "
            f"--include_path {args.out}"
        )
