"""Serving: 64 chats at once beside one by one, a second question beside the first, a hard load.

    python -m bench.serving [--engines local,vllm] [--only chats,second,load] [--quick]

chats   64 askers, each with questions of its own about one of 16 clips, through a gateway over
        HTTP (`openai` client, files uploaded before), beside two loops on transformers that take
        the same questions one by one: `generate()` from the file each time, as scripts do, and our
        engine with the clip read before. Beside it the local engine's own curve: questions in
        batches of 1, 2, 4 .. 64 about clips that were read before.
second  time to the first event and to the first word, of a first question about a file that the
        gateway has never seen, and of a second one. Clips of 10 s and of 60 s.
load    500 requests, 50 at a time, every tenth one bad (a broken file, no base64, an unknown
        model, an unknown upload), after as many to warm up: answers lost, answers that are not
        those of `LocalEngine` for that clip and question, and the memory of the gateway and of what
        it started before and after.

All sides have the same weights in float32 and the same clips of Bandstand; answers are compared
before times are. A gateway starts with an empty store; `second` asks
about files of its own. Times are wall clock; rates are over the
whole run of a side, and ratios are of this run.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.serve_demo import served
from avqa_llm.engine import LocalEngine
from avqa_llm.labels import to_label
from bench.evaluation import with_generate
from eval.benchmarks.bandstand import prepare
from eval.media import find_media

SEED, FPS = 73, 5.0
CURVE = (1, 2, 4, 8, 16, 32, 64)
BAD = ("broken file", "no base64", "unknown model", "unknown upload")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is asked."""

    clips: int = 16
    chats: int = 64
    each: int = 4
    """Questions of one chat."""
    alone: int = 32
    """Questions that the loops are timed on."""
    seconds: tuple[float, ...] = (10.0, 60.0)
    """Lengths of the clips of `second`."""
    firsts: int = 6
    """Clips of each length."""
    requests: int = 500
    at_once: int = 50


QUICK = Size(clips=4, chats=16, each=1, alone=4, seconds=(10.0,), firsts=2, requests=60, at_once=20)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question about a file, and its answer by `LocalEngine`."""

    path: Path
    question: str
    label: str


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", default="local,vllm", help="default: %(default)s")
    parser.add_argument("--only", default="chats,second,load", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="small: does it run at all?")
    args = parser.parse_args()
    size, parts = QUICK if args.quick else Size(), args.only.split(",")
    engine = LocalEngine.load("tiny")
    rows = known(engine, size)
    print(f"{os.cpu_count()} cores; {len(rows)} questions about {size.clips} clips of 10 s")
    alone = one_by_one(engine, rows[:: max(1, len(rows) // size.alone)]) if "chats" in parts else {}
    if "chats" in parts:
        curve(engine, rows)
    for kind in args.engines.split(","):
        with gateway(kind) as (address, pid):
            for part in (part for part in ("second", "chats", "load") if part in parts):
                print(f"\n{part}, gateway with {kind}:", flush=True)
                asyncio.run(measured(part, address, rows, size, alone, pid))


async def measured(
    part: str, address: str, rows: Sequence[Asked], size: Size, alone: dict[str, float], pid: int
) -> None:
    """One part against a gateway that runs."""
    async with opened(address) as client:
        if part == "second":
            await second(client, size)
        elif part == "chats":
            await chats(client, rows, size, alone)
        else:
            await load(client, rows, size, pid)


@contextmanager
def gateway(kind: str) -> Iterator[tuple[str, int]]:
    """A fresh `avqa serve` with nothing kept: its address, and its process id."""
    with (
        tempfile.TemporaryDirectory() as store,
        served(kind, "tiny", "--store", store, "--rate", "0") as (address, process),
    ):
        yield address, process.pid


def known(engine: LocalEngine, size: Size) -> list[Asked]:
    """Questions with their answers, those about one clip never beside each other."""
    made = prepare("bandstand-r", clips=size.clips, seed=SEED, seconds=10.0, fps=FPS)
    rows = json.loads((made.annotations / "avqa-test-headtail.json").read_text())
    media = find_media(made.media)
    wanted = -(-size.chats * size.each // size.clips)
    by_clip: dict[str, list[str]] = {}
    for row in rows:
        questions = by_clip.setdefault(row["video_id"], [])
        if len(questions) < wanted:
            questions.append(row["question_content"])
    found = []
    for video, questions in by_clip.items():
        answers = engine.answer(engine.read(media[video]), questions)
        found.append(
            [
                Asked(path=media[video], question=q, label=a.label)
                for q, a in zip(questions, answers, strict=True)
            ]
        )
    return [one for rank in zip(*found, strict=True) for one in rank][: size.chats * size.each]


# -- one by one, and in batches --------------------------------------------------------------------


def one_by_one(engine: LocalEngine, rows: Sequence[Asked]) -> dict[str, float]:
    """Seconds of a question in each loop."""
    found = {}
    readings = {path: engine.digest([engine.encode(engine.read(path))]) for path in paths(rows)}

    def with_reading(engine: LocalEngine, path: Path, question: str) -> str:
        return engine.ask(readings[path], [(0, question)])[0].label

    loops = {"generate() from the file": with_generate, "our engine, clip read": with_reading}
    for name, answer in loops.items():
        seconds, same = [], 0
        for row in rows:
            started = time.perf_counter()
            same += to_label(answer(engine, row.path, row.question)) == row.label
            seconds.append(time.perf_counter() - started)
        found[name] = statistics.mean(seconds)
        print(
            f"one by one, {name}: {1 / found[name]:.2f} answers/s (median {spread(seconds)} s, "
            f"same answers {same} of {len(rows)})"
        )
    return found


def curve(engine: LocalEngine, rows: Sequence[Asked]) -> None:
    """Answers and tokens a second of the local engine by the size of its batches."""
    from avqa_llm.serving.rows import Row, answer_rows, taken_apart

    some = paths(rows)
    whole = engine.digest([engine.encode(engine.read(path)) for path in some])
    readings = dict(zip(some, taken_apart(whole), strict=True))
    jobs = [Row(reading=readings[row.path], question=row.question) for row in rows]
    base = 0.0
    for batch in (n for n in CURVE if n <= len(jobs)):
        times, tokens, answers = [], 0, 0
        for at in range(0, min(len(jobs), 4 * batch + 8), batch):
            part = jobs[at : at + batch]
            started = time.perf_counter()
            done = answer_rows(engine, part)
            times.append(time.perf_counter() - started)
            tokens, answers = tokens + sum(one.tokens for one in done), answers + len(part)
        rate = answers / sum(times)
        base = base or rate
        print(
            f"local engine, batches of {batch}: {rate:.1f} answers/s, "
            f"{tokens / sum(times):.0f} tokens/s, {rate / base:.1f} times one by one"
        )


# -- 64 chats --------------------------------------------------------------------------------------


async def chats(client: Any, rows: Sequence[Asked], size: Size, alone: dict[str, float]) -> None:
    """All chats at once, each asking one question after the other."""
    started = time.perf_counter()
    files = {path: await uploaded(client, path) for path in paths(rows)}
    sent = time.perf_counter() - started
    tokens, same, late = 0, 0, []

    async def chat(own: Sequence[Asked]) -> None:
        nonlocal tokens, same
        for row in own:
            began = time.perf_counter()
            reply = await answered(client, by_id(files[row.path]), row.question)
            late.append(time.perf_counter() - began)
            tokens += reply.usage.completion_tokens
            same += reply.avqa["label"] == row.label

    started = time.perf_counter()
    await asyncio.gather(*(chat(rows[n :: size.chats]) for n in range(size.chats)))
    seconds = time.perf_counter() - started
    rate = len(rows) / seconds
    print(
        f"  {size.chats} chats, {len(rows)} questions: {rate:.2f} answers/s, "
        f"{tokens / seconds:.0f} tokens/s, {spread(late)} s an answer; uploads {sent:.1f} s; "
        f"same answers {same} of {len(rows)}"
    )
    for name, each in alone.items():
        print(f"  ratio to one by one, {name}: {rate * each:.1f}")


# -- the second question ---------------------------------------------------------------------------


async def second(client: Any, size: Size) -> None:
    """First and second question about files that were never seen."""
    for length in size.seconds:
        made = prepare("bandstand-r", clips=size.firsts, seed=SEED + 1, seconds=length, fps=FPS)
        times: dict[str, list[float]] = {}
        for path in sorted(find_media(made.media).values()):
            part = by_id(await uploaded(client, path))
            for when, question in (
                ("first", "How many instruments are sounding in the video?"),
                ("second", "Where is the loudest instrument?"),
            ):
                begun, worded = await streamed(client, part, question)
                times.setdefault(f"{when} question, first event", []).append(begun)
                times.setdefault(f"{when} question, first word", []).append(worded)
        for name, seconds in times.items():
            print(f"  clips of {length:g} s, {name}: {spread(seconds)} s")
        for what in ("first event", "first word"):
            ratios = [
                two / one
                for one, two in zip(
                    times[f"first question, {what}"], times[f"second question, {what}"], strict=True
                )
            ]
            print(f"  clips of {length:g} s, {what}, second to first: {spread(ratios)}")


async def streamed(client: Any, part: dict[str, Any], question: str) -> tuple[float, float]:
    """Seconds to the first event, and to the first word."""
    started = time.perf_counter()
    begun = worded = 0.0
    stream = await client.chat.completions.create(
        model="tiny", messages=message(part, question), stream=True
    )
    async for chunk in stream:
        begun = begun or time.perf_counter() - started
        if chunk.choices and chunk.choices[0].delta.content:
            worded = worded or time.perf_counter() - started
    return begun, worded


# -- the load --------------------------------------------------------------------------------------


async def load(client: Any, rows: Sequence[Asked], size: Size, pid: int) -> None:
    """As many requests to warm up as are counted then."""
    files = {path: await uploaded(client, path) for path in paths(rows)}
    memory = [resident(pid)]
    await all_of(client, rows, files, size)
    memory.append(resident(pid))
    started = time.perf_counter()
    found, late = await all_of(client, rows, files, size)
    seconds = time.perf_counter() - started
    memory.append(resident(pid))
    print(f"  {size.requests} requests, {size.at_once} at once: {size.requests / seconds:.2f}/s")
    print(f"  {dict(sorted(found.items()))}; {spread(late)} s each")
    said = ", ".join(f"{some / 2**20:.0f}" for some in memory)
    print(f"  MiB in memory at the start, after warming up, after the load: {said}")


async def all_of(
    client: Any, rows: Sequence[Asked], files: dict[Path, str], size: Size
) -> tuple[Counter[str], list[float]]:
    """What became of all requests, and how long each took."""
    found, late = Counter[str](), []
    places = asyncio.Semaphore(size.at_once)

    async def one(n: int) -> None:
        async with places:
            began = time.perf_counter()
            found[await outcome(client, rows, files, n)] += 1
            late.append(time.perf_counter() - began)

    await asyncio.gather(*(one(n) for n in range(size.requests)))
    return found, late


async def outcome(client: Any, rows: Sequence[Asked], files: dict[Path, str], n: int) -> str:
    """What became of request `n`; every tenth one is bad."""
    import openai

    row = rows[n % len(rows)]
    part, model = by_id(files[row.path]), "tiny"
    bad = BAD[n // 10 % len(BAD)] if n % 10 == 9 else ""
    if bad == "broken file":
        data = base64.b64encode(row.path.read_bytes()[: 2000 + n] * 2).decode()
        part = by_url(f"data:video/mp4;base64,{data}")
    elif bad == "no base64":
        part = by_url("data:video/mp4;base64,***")
    elif bad == "unknown model":
        model = "nobody"
    elif bad == "unknown upload":
        part = by_id("file-" + "0" * 32)
    elif n % 7 == 0:  # the file itself, as one that nobody uploaded
        part = by_url(f"data:video/mp4;base64,{base64.b64encode(row.path.read_bytes()).decode()}")
    try:
        reply = await answered(client, part, row.question, model)
    except openai.APIStatusError as error:
        kind = "refused" if bad and error.status_code < 500 else "LOST"
        return f"{kind} ({bad or 'good'}: {error.status_code})"
    except openai.APIError as error:
        return f"LOST ({type(error).__name__})"
    if bad:
        return f"WRONG (answered: {bad})"
    return "right" if reply.avqa["label"] == row.label else "CROSSED"


def resident(pid: int) -> int:
    """Bytes in memory of a process and of all that it started."""
    children: dict[int, list[int]] = {}
    sizes: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                pages = int((folder / "statm").read_text().split()[1])
            except (OSError, IndexError):  # it has just ended
                continue
            children.setdefault(parent, []).append(int(folder.name))
            sizes[int(folder.name)] = pages * os.sysconf("SC_PAGE_SIZE")
    total, left = 0, [pid]
    while left:
        one = left.pop()
        total, left = total + sizes.get(one, 0), left + children.get(one, [])
    return total


# -- the client ------------------------------------------------------------------------------------


def opened(address: str) -> Any:
    """The plain client."""
    from openai import AsyncOpenAI

    return AsyncOpenAI(base_url=f"{address}/v1", api_key="none", timeout=600, max_retries=3)


async def uploaded(client: Any, path: Path) -> str:
    """The id of an upload."""
    return str((await client.files.create(file=path, purpose="user_data")).id)


async def answered(client: Any, part: dict[str, Any], question: str, model: str = "tiny") -> Any:
    """A reply."""
    return await client.chat.completions.create(model=model, messages=message(part, question))


def message(part: dict[str, Any], question: str) -> list[dict[str, Any]]:
    """A question about one clip."""
    return [{"role": "user", "content": [part, {"type": "text", "text": question}]}]


def by_id(upload: str) -> dict[str, Any]:
    """A clip that was uploaded."""
    return {"type": "file", "file": {"file_id": upload}}


def by_url(url: str) -> dict[str, Any]:
    """A clip in the request."""
    return {"type": "video_url", "video_url": {"url": url}}


def paths(rows: Sequence[Asked]) -> list[Path]:
    """Every file once."""
    return list(dict.fromkeys(row.path for row in rows))


def spread(values: Sequence[float]) -> str:
    """Median, least and most."""
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


if __name__ == "__main__":
    main()
