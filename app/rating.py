"""Thumbs and corrections of visitors: kept only by those who agreed, only on this machine."""

from __future__ import annotations

import asyncio
from pathlib import Path

from app.feedback import Feedback
from app.room import Room, Turn
from avqa_llm.errors import AVQAError

CONSENT = (
    "Keep my ratings and corrections on this machine, with my questions, the answers and the clips'"
    " fingerprints (not the clips), to improve models."
)
ASK_FIRST = "Your rating was not kept: tick the box below the conversation first, if you agree."


class Ratings:
    """A store that is made when somebody first agrees."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._store: Feedback | None = None

    async def agree(self, room: Room, agrees: bool) -> str:
        """Record that a visitor agreed, or forget what there is of them. What to say of it."""
        return await asyncio.to_thread(self._agree, room, agrees)

    def _agree(self, room: Room, agrees: bool) -> str:
        if not agrees:
            kept = self._store is not None
            if self._store is not None:
                self._store.forget(room.id)
            return "Everything of this visit was forgotten." if kept else ""
        self._store = self._store or Feedback(self._path)
        self._store.consent(room.id, CONSENT)
        return (
            f"Thank you. This visit is {room.id}; untick the box, or name it to the keeper of this"
            " page, to have all of it forgotten."
        )

    async def rate(self, room: Room, number: int, liked: bool, correction: str) -> str:
        """Keep a rating of a turn, counted from 0; what to say of it. Raises AVQAError."""
        turn = room.turns[number] if 0 <= number < len(room.turns) else None
        if turn is None or turn.answer is None or turn.media is None:
            raise AVQAError("There is no answer there to rate.")
        return await asyncio.to_thread(self._rate, room, turn, liked, correction)

    def _rate(self, room: Room, turn: Turn, liked: bool, correction: str) -> str:
        if self._store is None or not self._store.has_consent(room.id):
            raise AVQAError(ASK_FIRST)
        assert turn.media is not None and turn.answer is not None
        self._store.add(
            room.id,
            turn.media.sha256,
            turn.asked,
            turn.answer,
            1 if liked else -1,
            "" if liked else correction,
            turn.model,
            cut=turn.cut,
        )
        what = "with your correction" if correction and not liked else ""
        return f"Your rating was kept {what}".strip() + "."
