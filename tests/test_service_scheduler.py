"""Lanes, flights and what is kept: batches, turns, bounds, cancellation, errors."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from avqa_llm.serving.contract import RetryableError
from avqa_llm.serving.kept import Flights, Kept
from avqa_llm.serving.scheduler import Job, Lane, LaneSettings, in_turn


def lane(**how: Any) -> Lane:
    return Lane(LaneSettings(**{"name": "test", "gather_s": 0.01, **how}))


class Recorder:
    """Work that waits until it may go on, and keeps its batches."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.began, self.may_go = threading.Event(), threading.Event()

    def __call__(self, payloads: Sequence[Any]) -> list[Any]:
        self.batches.append(list(payloads))
        self.began.set()
        assert self.may_go.wait(10)
        if "bad" in payloads:
            raise ValueError("bad")
        return [f"did {one}" for one in payloads]


def job(fair: str, since: float = 0.0) -> Job:
    return Job("group", fair, fair, lambda some: some, 9, 0.0, since=since)


def test_clips_take_turns() -> None:
    jobs = [job("loud")] * 100 + [job("quiet"), job("quiet"), job("shy")]
    chosen = [one.fair for one in in_turn(jobs, 6)]
    assert chosen == ["loud", "quiet", "shy", "loud", "quiet", "loud"]
    assert [one.fair for one in in_turn(jobs[:4], 6)] == ["loud"] * 4


def test_what_waits_shares_a_batch_of_its_group() -> None:
    work, own = Recorder(), lane(most_batch=3)
    work.may_go.set()

    async def many() -> list[Any]:
        groups = ("a", "b", "a", "a", "b", "a")
        return await asyncio.gather(
            *(
                own.do(work, f"{group}{n}", group=group, fair=n, within_s=5)
                for n, group in enumerate(groups)
            )
        )

    assert asyncio.run(many()) == ["did a0", "did b1", "did a2", "did a3", "did b4", "did a5"]
    assert work.batches == [["a0", "a2", "a3"], ["b1", "b4"], ["a5"]]
    own.close()


def test_one_bad_job_does_not_take_the_others_down() -> None:
    work, own = Recorder(), lane()
    work.may_go.set()

    async def many() -> list[Any]:
        jobs = (own.do(work, one, group=0, fair=one, within_s=5) for one in ("x", "bad", "y"))
        return await asyncio.gather(*jobs, return_exceptions=True)

    first, bad, last = asyncio.run(many())
    assert (first, last) == ("did x", "did y") and isinstance(bad, ValueError)
    own.close()


def test_a_full_lane_says_when_to_come_again() -> None:
    work, own = Recorder(), lane(most_waiting=1)

    async def three() -> None:
        first = asyncio.ensure_future(own.do(work, 1, group=0, fair=1, within_s=5))
        await asyncio.to_thread(work.began.wait, 5)
        second = asyncio.ensure_future(own.do(work, 2, group=0, fair=2, within_s=5))
        await asyncio.sleep(0)
        with pytest.raises(RetryableError, match="limit is 1") as refused:
            await own.do(work, 3, group=0, fair=3, within_s=5)
        assert refused.value.after_s >= 1
        work.may_go.set()
        assert await asyncio.gather(first, second) == ["did 1", "did 2"]

    asyncio.run(three())
    own.close()


def test_who_is_cancelled_or_late_leaves_the_queue() -> None:
    work, own = Recorder(), lane()

    async def three() -> None:
        first = asyncio.ensure_future(own.do(work, 1, group=0, fair=1, within_s=5))
        await asyncio.to_thread(work.began.wait, 5)
        gone = asyncio.ensure_future(own.do(work, 2, group=0, fair=2, within_s=5))
        await asyncio.sleep(0)
        assert own.waiting == 1
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert own.waiting == 0
        with pytest.raises(RetryableError, match="no answer within 0.05 s"):
            await own.do(work, 3, group=0, fair=3, within_s=0.05)
        assert own.waiting == 0
        work.may_go.set()
        await first

    asyncio.run(three())
    own.close()
    assert work.batches == [[1]]
    with pytest.raises(RetryableError, match="shutting down"):
        asyncio.run(own.do(work, 4, group=0, fair=4, within_s=1))


def test_the_group_that_waited_longest_is_next() -> None:
    work, own = Recorder(), lane(gather_s=0.0)

    async def many() -> None:
        jobs = [asyncio.ensure_future(own.do(work, "x", group="x", fair=0, within_s=5))]
        await asyncio.to_thread(work.began.wait, 5)
        for group in ("b", "a", "b"):
            one = own.do(work, group, group=group, fair=0, within_s=5)
            jobs.append(asyncio.ensure_future(one))
            await asyncio.sleep(0.002)
        work.may_go.set()
        await asyncio.gather(*jobs)

    asyncio.run(many())
    own.close()
    assert work.batches == [["x"], ["b", "b"], ["a"]]


def test_what_is_under_way_is_not_begun_again() -> None:
    flights: Flights[int] = Flights()
    made = []

    async def make() -> int:
        made.append(1)
        await asyncio.sleep(0.02)
        return len(made)

    async def fail() -> int:
        await asyncio.sleep(0.01)
        raise ValueError("broken")

    async def many() -> None:
        found = await asyncio.gather(*(flights.once("clip", make) for _ in range(5)))
        assert found == [1] * 5 and "clip" not in flights
        assert await flights.once("clip", make) == 2
        both = await asyncio.gather(
            *(flights.once("bad", fail) for _ in range(2)), return_exceptions=True
        )
        assert [type(one) for one in both] == [ValueError, ValueError]

    asyncio.run(many())


def test_one_who_leaves_does_not_stop_the_others_and_the_last_does() -> None:
    flights: Flights[str] = Flights()
    ended: list[str] = []

    async def make() -> str:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return "done"

    async def many() -> None:
        one, two = (asyncio.ensure_future(flights.once("clip", make)) for _ in range(2))
        await asyncio.sleep(0.01)
        one.cancel()
        assert await two == "done" and not ended
        alone = asyncio.ensure_future(flights.once("clip", make))
        await asyncio.sleep(0.01)
        alone.cancel()
        await asyncio.sleep(0.01)
        assert ended == ["cancelled"] and "clip" not in flights

    asyncio.run(many())


def test_kept_values_are_bounded_by_number_and_bytes() -> None:
    kept: Kept[str] = Kept(most=3, most_bytes=100)
    for name in "abc":
        kept.put(name, name, 30)
    assert kept.get("a") == "a"
    kept.put("d", "d", 30)
    assert kept.get("b") is None and len(kept) == 3, "the one not used for longest has left"
    kept.put("e", "e", 70)
    assert (len(kept), kept.bytes) == (2, 100), "bytes count too"
    kept.put("huge", "huge", 101)
    assert kept.get("huge") is None and kept.get("e") == "e"
    kept.put("e", "again", 10)
    assert (kept.get("e"), kept.bytes) == ("again", 40)
    kept.drop(lambda key: key == "e")
    assert (len(kept), kept.bytes) == (1, 30)


def test_a_lane_ends_when_all_is_done() -> None:
    own = lane(workers=3)
    started = time.monotonic()
    own.close()
    assert time.monotonic() - started < 5
