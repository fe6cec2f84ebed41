"""The chat page: a clip dropped and asked about, and asked about again, beside the cold path.

    python -m bench.page [--clips 6] [--cold 3]

page    each clip is one that the page has never seen, uploaded and asked about in one call of its
        API (`gradio_client`), then asked about twice more. 20 visitors then ask at the same time.
cold    the same first question by `avqa ask` in a process of its own, as scripts do it.

Answers of both sides are compared before times are. Clips are of 10 s, from Bandstand, seed 75.
Times are wall clock, ratios are of this run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from app.screenshots import served
from bench.serving import spread
from eval.benchmarks.bandstand import prepare
from eval.media import find_media

SEED, FPS = 75, 5.0
FIRST = "How many instruments are sounding in the video?"
MORE = ("Where is the loudest instrument?", "Where is the performance?")
VISITORS = 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=6, help="default: %(default)s")
    parser.add_argument("--cold", type=int, default=3, help="clips of the cold path (%(default)s)")
    args = parser.parse_args()
    made = prepare("bandstand-r", clips=args.clips, seed=SEED, seconds=10.0, fps=FPS)
    clips = sorted(find_media(made.media).values())
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {len(clips)} clips of 10 s")
    with served() as address:
        firsts, again, answers = one_visitor(address, clips)
        crowd(address, clips, answers)
    cold, same = in_processes(clips[: args.cold], answers)
    print(f"`avqa ask` in a process: {spread(cold)} s; same answers {same} of {len(cold)}")
    base = statistics.median(cold)
    print(f"ratio to that, first answer on the page: {statistics.median(firsts) / base:.2f}")
    print(f"ratio to that, a further answer on the page: {statistics.median(again) / base:.3f}")


def one_visitor(
    address: str, clips: Sequence[Path]
) -> tuple[list[float], list[float], dict[Path, str]]:
    """Seconds of first answers, with their uploads, and of further ones; first answers."""
    firsts, again, answers = [], [], {}
    client = visit(address)
    for clip in clips:
        seconds, answers[clip] = asked(client, FIRST, clip)
        firsts.append(seconds)
        again += [asked(client, question)[0] for question in MORE]
    print(f"first answer about a new clip, upload included: {spread(firsts)} s")
    print(f"of these, the first one after the start: {firsts[0]:.2f} s")
    print(f"further answers: {spread(again)} s")
    return firsts, again, answers


def crowd(address: str, clips: Sequence[Path], answers: dict[Path, str]) -> None:
    """Visitors at the same time, each with a clip that the page knows by now."""
    visitors = [visit(address) for _ in range(VISITORS)]

    def one(n: int) -> tuple[float, bool]:
        clip = clips[n % len(clips)]
        seconds, answer = asked(visitors[n], FIRST, clip)
        return seconds, answer == answers[clip]

    with ThreadPoolExecutor(VISITORS) as pool:
        found = list(pool.map(one, range(VISITORS)))
    own = sum(same for _, same in found)
    seconds = spread([each for each, _ in found])
    print(f"{VISITORS} visitors at once: {seconds} s; {own} of {VISITORS} got their own answer")


def in_processes(clips: Sequence[Path], answers: dict[Path, str]) -> tuple[list[float], int]:
    """Seconds of `avqa ask`, and how many of its answers are those of the page."""
    seconds, same = [], 0
    for clip in clips:
        line = [sys.executable, "-m", "avqa_llm", "ask", str(clip), FIRST, "--json"]
        with tempfile.TemporaryDirectory() as cache:  # nothing of the clip is known yet
            started = time.perf_counter()
            done = subprocess.run(
                line, env=os.environ | {"AVQA_CACHE": cache}, capture_output=True, check=True
            )
            seconds.append(time.perf_counter() - started)
        same += json.loads(done.stdout)["answer"] == answers[clip]
    return seconds, same


def visit(address: str) -> Any:
    """A visitor of the page."""
    from gradio_client import Client

    return Client(address, verbose=False)


def asked(client: Any, question: str, clip: Path | None = None) -> tuple[float, str]:
    """Seconds to the whole answer, and the answer."""
    from gradio_client import handle_file

    files = [] if clip is None else [handle_file(str(clip))]
    started = time.perf_counter()
    message = {"text": question, "files": files}
    _, told = client.predict(message, "tiny", False, False, api_name="/chat")
    return time.perf_counter() - started, told["answer"]["answer"]


if __name__ == "__main__":
    main()
