"""A turn of the conversation: what was sent becomes a question, the question an answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.agent import Agents
from app.clips import Media, admitted, meant
from app.history import MOST_EXCHANGES, request, turns_of
from app.models import Models
from app.reply import growing, said
from app.room import Room, Turn
from app.viewing import Looks
from avqa_llm.errors import AVQAError
from avqa_llm.serving.contract import Delta, Done

log = logging.getLogger("app")
BROKEN = "Something went wrong here, which is not your clip's fault; the log of the page says what."
STOPPED = "Stopped."


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How a question is to be answered."""

    model: str
    open_ended: bool = False
    twice: bool = False
    """By the agent, which looks again where a question needs it."""


class Talk:
    """All conversations: models, files and looks are shared, what was said is not."""

    def __init__(self, models: Models, looks: Looks, uploads: Path) -> None:
        self.models, self.looks, self._uploads = models, looks, uploads
        self._agents = Agents(models)
        self._ahead: set[asyncio.Task[None]] = set()

    # -- clips ---------------------------------------------------------------------------------

    async def admit(self, given: str, room: Room) -> tuple[Media, bool]:
        """Take a file into a conversation. Raises MediaError."""
        media = await self.seen(given, room)
        is_new = media not in room.media
        if is_new:
            room.media.append(media)
        return media, is_new

    async def seen(self, given: str, room: Room) -> Media:
        """A file, which is not yet a part of the conversation. Raises MediaError."""
        return await asyncio.to_thread(
            admitted, given, tuple(room.media), uploads=self._uploads, limits=self.models.limits
        )

    def read_ahead(self, media: Media, model: str) -> None:
        """Let a model read a clip before anybody asks: the question then joins what is under way.

        What goes wrong is said when somebody asks.
        """
        with contextlib.suppress(AVQAError):
            if not self.models.choice(model).here:
                return  # nothing leaves this machine before somebody asks
            task = asyncio.ensure_future(self._read(Turn(question="", media=media, model=model)))
            self._ahead.add(task)
            task.add_done_callback(self._ahead.discard)

    async def _read(self, turn: Turn) -> None:
        service = self.models.choice(turn.model).service
        with contextlib.suppress(AVQAError):
            await self.models.stage.do(service.prepare(turn.ask()))

    # -- a turn --------------------------------------------------------------------------------

    async def reply(
        self, message: object, history: object, wish: Wish, room: Room
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """What is said, growing, with the details of the answer once it stands.

        The last turn of the room then is this one. Never raises for what a visitor did: that is
        said in the conversation.
        """
        started = time.perf_counter()
        room.back_to(turns_of(history))
        text, files = request(message)
        turn = Turn(question=text, model=wish.model, open_ended=wish.open_ended)
        try:
            async with contextlib.aclosing(self._turn(turn, files, wish, room)) as turns:
                async for turn in turns:
                    if turn.answer is None:
                        yield growing(turn), {}
        except AVQAError as error:
            turn = replace(turn, answer=None, said=sentence(error))
        except (asyncio.CancelledError, GeneratorExit):
            room.turns.append(replace(turn, answer=None, said=STOPPED))
            raise
        except Exception:
            log.exception("a turn failed")
            turn = replace(turn, said=BROKEN)
        turn = replace(turn, seconds=time.perf_counter() - started)
        room.turns.append(turn)
        yield said(turn), details(turn)

    async def _turn(
        self, turn: Turn, files: tuple[str, ...], wish: Wish, room: Room
    ) -> AsyncGenerator[Turn, None]:
        choice = self.models.choice(wish.model)
        if len(room.turns) >= MOST_EXCHANGES:
            raise AVQAError(f"a conversation has at most {MOST_EXCHANGES} turns; begin a new one")
        for given in files:
            media, is_new = await self.admit(given, room)
            if is_new:
                self.read_ahead(media, wish.model)
        if not turn.question:
            yield replace(turn, said=await self._greeting(room, bool(files)))
            return
        media, asked = meant(turn.question, room.media)
        turn = replace(
            turn,
            media=media,
            asked=asked,
            before=room.before(media, wish.model),
            open_ended=turn.open_ended or choice.opens,
        )
        yield turn
        answered = self._agents.run(turn) if wish.twice else self._answered(turn)
        async with contextlib.aclosing(answered) as turns:
            async for turn in turns:
                yield turn

    async def _greeting(self, room: Room, sent: bool) -> str:
        """What is said to a clip without a question. Raises MediaError if it cannot be read."""
        if not sent or not room.media:
            raise AVQAError("There is no question: ask something about the clip.")
        look = await self.looks.of(room.media[-1])
        what = [
            word for word, has in (("sound", look.has_sound), ("picture", look.has_picture)) if has
        ]
        return (
            f"{look.name}: {look.duration_s:.1f} s with {' and '.join(what)}. What would you like"
            " to know about it?"
        )

    async def _answered(self, turn: Turn) -> AsyncGenerator[Turn, None]:
        service, grown = self.models.choice(turn.model).service, ""
        events = self.models.stage.events(service, turn.ask())
        async with contextlib.aclosing(events) as stream:
            async for event in stream:
                if isinstance(event, Delta):
                    grown += event.text
                    yield replace(turn, said=grown)
                elif isinstance(event, Done):
                    yield replace(turn, said="", answer=event.answer)

    async def again(self, turn: Turn) -> Turn:
        """A turn's question once more, with its clip as the turn now says. Raises AVQAError."""
        started = time.perf_counter()
        async with contextlib.aclosing(self._answered(turn)) as turns:
            async for found in turns:
                turn = found
        return replace(turn, seconds=time.perf_counter() - started)


def sentence(error: AVQAError) -> str:
    """An error as it is said in the conversation."""
    text = str(error)
    if text.partition(" ")[0].isalpha():  # not the name of a file
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def details(turn: Turn) -> dict[str, Any]:
    """A turn for programs."""
    return {
        "clip": None if turn.media is None else turn.media.name,
        "model": turn.model,
        "question": turn.question,
        "seconds": round(turn.seconds, 3),
        "said": turn.said,
        "answer": None if turn.answer is None else turn.answer.to_json(),
    }
