"""Ratings are kept of those who agreed, and forgotten when they no longer do."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from app.feedback import Feedback
from app.handlers import Handlers, number_of
from app.rating import ASK_FIRST, Ratings
from app.room import Room
from tests.test_app_words import TURN

HISTORY = [
    {"role": "user", "content": "Is it loud?"},
    {"role": "assistant", "content": "**yes**"},
    {"role": "user", "content": "again?"},
    {"role": "assistant", "content": "sorry"},
]


def test_messages_belong_to_turns() -> None:
    assert [number_of(HISTORY, n) for n in range(4)] == [0, 0, 1, 1]
    assert number_of(HISTORY, [3, 0]) == 1
    for odd in (None, "1", -1, [], 7.5, {}):
        assert number_of(HISTORY, odd) is None


def test_nothing_is_kept_without_consent_and_nothing_after_it_ends(tmp_path: Path) -> None:
    store = tmp_path / "kept" / "feedback.sqlite"
    nothing: Any = None
    handlers = Handlers(nothing, nothing, Ratings(store))
    room = Room()
    room.turns.append(TURN)

    async def rate(index: object, liked: object = False, right: str = "no") -> str:
        return await handlers.rate(HISTORY, index, liked, right, room)

    assert asyncio.run(rate(1)) == ASK_FIRST and not store.exists()
    assert room.id in asyncio.run(handlers.agree(True, room))
    assert asyncio.run(rate(1)) == "Your rating was kept with your correction."
    assert "no answer there" in asyncio.run(rate(3))
    pairs = tmp_path / "pairs.jsonl"
    assert Feedback(store).export_pairs(pairs) == 1
    (pair,) = [json.loads(line) for line in pairs.read_text().splitlines()]
    assert "no" in json.dumps(pair["chosen"]) and "yes" in json.dumps(pair["rejected"])
    assert asyncio.run(handlers.agree(False, room)) == "Everything of this visit was forgotten."
    assert Feedback(store).count() == 0
    assert asyncio.run(rate(1)) == ASK_FIRST
