"""`make serve-demo`: serve the embedded model through vLLM, and ask it with the `openai` client.

Nothing of ours is on the asking side but a file: any client of OpenAI's protocol does the same.

    .venv/bin/python app/serve_demo.py [--engine local|vllm] [--base-url URL]
"""

from __future__ import annotations

import argparse
import base64
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CLIP = Path(__file__).resolve().parent / "samples" / "duo.mp4"
QUESTIONS = ("Which instrument comes in first?", "Is the guzheng in the video always playing?")


def main() -> int:
    """Start, ask, print, stop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=("local", "vllm"), default="vllm")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--base-url", help="a gateway that runs; absent: one is started")
    args = parser.parse_args()
    if args.base_url:
        return ask(args.base_url)
    with served(args.engine, args.model) as (address, _):
        return ask(f"{address}/v1")


@contextmanager
def served(engine: str, model: str, *more: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`avqa serve` on a free port: its address and process, until it is not needed any more."""
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # never leave it behind
    line = [sys.executable, "-m", "avqa_llm", "serve", "--engine", engine, "--model", model]
    process = subprocess.Popen([*line, "--port", "0", *more], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for said in process.stdout:
            print(said, end="", flush=True)
            if "ready at " in said:
                yield said.split("ready at ")[1].split()[0], process
                break
        else:
            raise SystemExit(process.wait() or 1)
    finally:
        process.terminate()
        for said in process.stdout:
            if not said.startswith("  "):
                print(said, end="", flush=True)
        process.wait(timeout=120)


def ask(base_url: str) -> int:
    """Two questions about one clip, with the plain client."""
    from openai import OpenAI

    client = OpenAI(base_url=base_url, api_key="none")
    model = client.models.list().data[0].id
    data = base64.b64encode(CLIP.read_bytes()).decode()
    video: dict[str, Any] = {
        "type": "video_url",
        "video_url": {"url": f"data:video/mp4;base64,{data}"},
    }
    seconds = []
    for question in QUESTIONS:
        started = time.perf_counter()
        reply: Any = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": [video, {"type": "text", "text": question}]}],
        )
        seconds.append(time.perf_counter() - started)
        show(question, reply, seconds[-1])
    print(f"\nThe second question took {seconds[1] / seconds[0]:.0%} of the time of the first.")
    return 0


def show(question: str, reply: Any, seconds: float) -> None:
    """A reply for a person."""
    about = reply.avqa
    print(f"\n  {question}\n  → {reply.choices[0].message.content}   ", end="")
    print(f"({about['probability']:.0%} sure; {seconds:.2f} s)")
    for place in about["evidence"]:
        verb = {"sound": "listened at", "picture": "looked at"}[place["modality"]]
        print(f"    {verb} {place['start_s']:.1f}-{place['end_s']:.1f} s ({place['weight']:.0%})")
    used = about["consumed"]
    print(f"    consumed {used['sound_tokens']} tokens of sound, ", end="")
    print(f"{used['picture_tokens']} of picture")
    for warning in about["warnings"]:
        print(f"    ! {warning}")


if __name__ == "__main__":
    sys.exit(main())
