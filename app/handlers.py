"""What happens when something on the page is touched. No component is named here."""

from __future__ import annotations

import html
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from app.export import to_json, to_markdown
from app.history import exchanges, request
from app.panel import panel
from app.rating import Ratings
from app.room import Room, Turn
from app.talk import BROKEN, Talk, Wish, sentence
from app.viewing import PLAYER, player
from app.voice import Voice
from app.whatif import changed, side_by_side, wanted
from avqa_llm.errors import AVQAError

log = logging.getLogger("app")
NOTHING_YET = (
    '<div class="av-empty"><p>Here stands what an answer rests on: what was heard and seen, how'
    " sure the model is, the moments that mattered.</p></div>"
)


class Handlers:
    """Of all visitors; what differs between them is in their rooms."""

    def __init__(self, talk: Talk, voice: Voice, ratings: Ratings) -> None:
        self._talk, self._voice, self._ratings = talk, voice, ratings

    # -- the conversation ----------------------------------------------------------------------

    async def chat(
        self, message: dict[str, Any], history: list[Any], wish: Wish, room: Room
    ) -> AsyncIterator[tuple[str, dict[str, Any], float]]:
        """A turn: what is said, its details, and a number that changes when it stands."""
        async for text, told in self._talk.reply(message, history, wish, room):
            yield text, told, room.turns[-1].at if told else 0.0

    async def ask_clip(self, clip: str, question: str, model: str = "") -> dict[str, Any]:
        """Ask one question about a video with its sound.

        Args:
            clip: the path that an upload to this server gave back.
            question: in plain words, such as "Which instrument comes in first?".
            model: which one answers; empty: the first that the page offers.
        """
        wish = Wish(model=model or self._talk.models.names[0])
        message = {"text": question, "files": [clip]}
        return [told async for _, told in self._talk.reply(message, [], wish, Room())][-1]

    async def drafted(self, message: object, model: str, room: Room) -> str | None:
        """A file lies ready to be sent: it is read meanwhile. The player; None: nothing new."""
        _, files = request(message)
        latest, before = (files[-1] if files else ""), room.drafted
        room.drafted = latest
        if latest and latest != before:  # this is asked at every letter that is typed
            try:
                media = await self._talk.seen(latest, room)
            except AVQAError as error:
                return _sorry(sentence(error))
            self._talk.read_ahead(media, model)
            return player(media)
        return None

    async def evidence(self, room: Room, number: int | None = None) -> tuple[str, str]:
        """Player and panel of a turn (counted from 0), or of the latest with an answer."""
        turns = room.turns
        turn = room.latest if number is None else turns[number] if number < len(turns) else None
        if turn is None or turn.answer is None or turn.media is None:
            return player(room.media[-1] if room.media else None), NOTHING_YET
        try:
            return player(turn.media, turn.cut), await self._panel(turn)
        except AVQAError as error:
            return player(None), _sorry(sentence(error))

    async def _panel(self, turn: Turn) -> str:
        assert turn.answer is not None and turn.media is not None
        look = await self._talk.looks.of(turn.media, replace(turn.cut, sound=True, picture=True))
        title = f'<p class="av-asked">{html.escape(turn.question)}</p>'
        starts = turn.cut.start_s or 0.0
        return title + panel(turn.answer, look, player=PLAYER, starts_s=starts)

    async def chosen(self, history: list[Any], index: object, room: Room) -> tuple[str, str]:
        """Player and panel of the turn that a message of the chat belongs to."""
        return await self.evidence(room, number_of(history, index))

    # -- what if -------------------------------------------------------------------------------

    async def what_if(
        self,
        mute: bool,
        blank: bool,
        mirror: bool,
        start_s: float | None,
        end_s: float | None,
        room: Room,
    ) -> AsyncIterator[str]:
        """The latest question again, about a changed clip: both answers side by side."""
        try:
            cut = wanted(mute, blank, mirror, start_s, end_s)
            if (before := room.latest) is None:
                raise AVQAError("Ask a question first: then it can be asked again.")
            yield '<p class="av-soft" role="status">Asking again …</p>'
            after = await self._talk.again(changed(before, cut))
            assert before.media is not None
            look = await self._talk.looks.of(before.media, replace(before.cut))
            other = await self._talk.looks.of(before.media, cut)
            yield side_by_side(before, look, after, other)
        except AVQAError as error:
            yield _sorry(sentence(error))
        except Exception:
            log.exception("what if failed")
            yield _sorry(BROKEN)

    # -- ratings -------------------------------------------------------------------------------

    async def agree(self, agrees: bool, room: Room) -> str:
        """Whether ratings of this visit may be kept; what to say of it."""
        try:
            return await self._ratings.agree(room, bool(agrees))
        except AVQAError as error:
            return sentence(error)

    async def rate(
        self, history: list[Any], index: object, liked: object, correction: str, room: Room
    ) -> str:
        """Keep a thumb; what to say of it."""
        number = number_of(history, index)
        try:
            return await self._ratings.rate(
                room, -1 if number is None else number, liked in (True, "Like"), correction or ""
            )
        except AVQAError as error:
            return sentence(error)

    # -- the rest ------------------------------------------------------------------------------

    async def spoken(self, path: str | None, message: object) -> tuple[dict[str, Any] | None, str]:
        """A recorded question as text beside what lies ready, and what there is to say."""
        if not path:
            return None, ""
        text, files = request(message)
        try:
            heard = await self._voice.text(path)
        except AVQAError as error:
            return None, sentence(error)
        return {
            "text": f"{text} {heard}".strip(),
            "files": list(files),
        }, "Read it before you send it."

    def added(self, path: str | None, message: object) -> dict[str, Any] | None:
        """A recording beside what lies ready."""
        text, files = request(message)
        return {"text": text, "files": [*files, path]} if path else None

    async def cleared(self, room: Room) -> tuple[str, str, str]:
        """Begin anew: player, panel, comparison."""
        room.clear()
        return player(None), NOTHING_YET, ""

    def about(self, model: str) -> str:
        """What the chosen model can do."""
        try:
            return self._talk.models.choice(model).about
        except AVQAError as error:
            return sentence(error)

    def chosen_model(self, model: str, room: Room) -> str:
        """The same; the latest clip is read by it meanwhile."""
        if room.media:
            self._talk.read_ahead(room.media[-1], model)
        return self.about(model)

    def json(self, room: Room) -> tuple[str, str]:
        """Name and text of the conversation as a file."""
        return "conversation.json", to_json(room)

    def markdown(self, room: Room) -> tuple[str, str]:
        """The same to read."""
        return "conversation.md", to_markdown(room)


def number_of(history: list[Any], index: object) -> int | None:
    """Which turn a message of the chat belongs to, counted from 0; None: to none."""
    at = index[0] if isinstance(index, list | tuple) and index else index
    count = len(exchanges(history[: at + 1])) if isinstance(at, int) and at >= 0 else 0
    return count - 1 if count else None


def _sorry(text: str) -> str:
    return f'<p class="av-sorry" role="alert">{html.escape(text)}</p>'
