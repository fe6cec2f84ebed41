"""Any omni model behind an OpenAI-compatible server: vLLM, SGLang, OpenAI itself.

That a part was sent proves nothing: servers drop sound without a word. What they consumed is
read from the token counts of their replies, or found by leaving the part out and counting again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from avqa_llm.answer import Answer, Consumed
from avqa_llm.labels import LABELS, to_label
from avqa_llm.media import Clip, Uniform, read_clip
from avqa_llm.media.parts import PICTURES, SOUNDS, Part, Parts, encode
from eval.choices import to_choice
from eval.engines import Asked
from eval.engines.pace import in_order
from eval.engines.reply import Reply, read_reply
from eval.engines.server import Refused, Server
from eval.samples import RunError

FEWEST_TOKENS = 8
"""A part that adds fewer was not consumed: where a part is dropped, a chat template may leave a
word such as `<audio>` with marks around it. Models make several tokens of each second of sound."""


@dataclass(frozen=True, kw_only=True)
class _Dialect:
    """How this server wants the settings of a request; learnt from what it refuses."""

    logprobs: bool = True
    temperature: bool = True
    limit: str = "max_tokens"

    def settings(self, most_tokens: int) -> dict[str, Any]:
        body: dict[str, Any] = {self.limit: most_tokens}
        if self.temperature:
            body["temperature"] = 0
        if self.logprobs:
            body["logprobs"] = True
        return body

    def without(self, refused: Refused) -> _Dialect | None:
        """What to try after a refusal; None where it is about something else."""
        if refused.status not in (400, 422):
            return None
        said = refused.said.lower()
        if self.logprobs and "logprob" in said:
            return replace(self, logprobs=False)
        if self.limit == "max_tokens" and "max_completion_tokens" in said:
            return replace(self, limit="max_completion_tokens")
        if self.temperature and "temperature" in said:
            return replace(self, temperature=False)
        return None


class OpenAI:
    """An `Engine` over `POST BASE_URL/chat/completions`.

    The probability of an answer is that of its text, the product over its tokens, and None
    where the server gives no log-probabilities. It cites no evidence.
    """

    def __init__(
        self,
        model: str,
        server: Server,
        *,
        concurrency: int,
        frames: int,
        max_side: int,
        picture: str,
        sound: str,
        most_tokens: int,
    ) -> None:
        self.model, self._server, self._concurrency = model, server, concurrency
        self._sampling, self._max_side = Uniform(frames=frames), max_side
        self._picture, self._sound, self._most_tokens = picture, sound, most_tokens
        self._dialect, self._lock = _Dialect(), threading.Lock()
        self._grown: dict[str, dict[str, int | None]] = {}

    @classmethod
    def connect(
        cls,
        model: str,
        *,
        base_url: str,
        key_env: str = "OPENAI_API_KEY",
        concurrency: int = 4,
        retries: int = 5,
        per_minute: int | None = None,
        timeout_s: float = 120,
        frames: int = 16,
        max_side: int = 448,
        picture: str = "video",
        sound: str = "input_audio",
        most_tokens: int = 32,
    ) -> OpenAI:
        """Describe a server; nothing is sent before the first question.

        Args:
            model: the name under which the server knows it.
            base_url: such as `http://127.0.0.1:8000/v1`.
            key_env: environment variable that holds the key; empty or unset: none is sent.
            concurrency: requests that are under way at once.
            retries: further tries of a request that failed in passing.
            per_minute: requests that are started in a minute, at most.
            timeout_s: of one request, in seconds.
            frames: frames of a clip, from the centres of as many equal spans.
            max_side: of a frame, in pixels.
            picture: `video`, or `images` for servers that take single frames only.
            sound: `input_audio`, or `audio_url`.
            most_tokens: of an answer; a model that thinks before it answers needs more.

        Raises:
            RunError: a value that cannot work; names it.
        """
        _require(bool(model), "model", model, "the name of a model on the server")
        _require(picture in PICTURES, "picture", picture, " or ".join(PICTURES))
        _require(sound in SOUNDS, "sound", sound, " or ".join(SOUNDS))
        for name, value in (("concurrency", concurrency), ("most_tokens", most_tokens)):
            _require(value >= 1, name, value, "at least 1")
        _require(retries >= 0, "retries", retries, "0 or more")
        _require(timeout_s > 0, "timeout_s", timeout_s, "above 0")
        _require(per_minute is None or per_minute >= 1, "per_minute", per_minute, "at least 1")
        server = Server(
            base_url,
            key=os.environ.get(key_env, "").strip() if key_env else "",
            key_env=key_env,
            retries=retries,
            per_minute=per_minute,
            timeout_s=timeout_s,
        )
        return cls(
            model,
            server,
            concurrency=concurrency,
            frames=frames,
            max_side=max_side,
            picture=picture,
            sound=sound,
            most_tokens=most_tokens,
        )

    def read(self, path: Path) -> Clip:
        """Read a media file with the frames that will be sent. Raises MediaError."""
        return read_clip(path, sampling=self._sampling, max_side=self._max_side)

    def answer(
        self, clips: Sequence[Clip], asked: Sequence[Asked], *, evidence: bool = False
    ) -> list[Answer]:
        """Answer all questions, each on its own, in order. There is no `evidence` to be had.

        Raises:
            RunError: the server refuses a request, or failed too often.
        """
        parts = {
            number: encode(clips[number], picture=self._picture, sound=self._sound)
            for number in sorted({one.clip for one in asked})
        }
        jobs = [
            partial(self._ask, parts[one.clip].content(), prompt(one), self._most_tokens)
            for one in asked
        ]
        replies = in_order(jobs, self._concurrency)
        keys = {number: each.key for number, each in parts.items()}
        self._leave_out(parts, keys, asked, replies)
        return [
            self._answer(one, parts[one.clip], reply, self._grown.get(keys[one.clip], {}))
            for one, reply in zip(asked, replies, strict=True)
        ]

    # -- requests --------------------------------------------------------------------------

    def _ask(
        self, content: Sequence[Part], text: str, most_tokens: int, stop: threading.Event
    ) -> Reply:
        """One request; what the server turns out not to know is left out from then on."""
        message = {"role": "user", "content": [*content, {"type": "text", "text": text}]}
        while True:
            dialect = self._dialect
            body = {"model": self.model, "messages": [message], **dialect.settings(most_tokens)}
            started = time.perf_counter()
            try:
                reply = read_reply(self._server.post(body, stop))
            except Refused as refused:
                eased = dialect.without(refused)
                if eased is None:
                    raise
                with self._lock:
                    if self._dialect is dialect:
                        self._dialect = eased
            else:
                return replace(reply, seconds=time.perf_counter() - started)

    def _without(self, parts: Parts, left_out: str, text: str, stop: threading.Event) -> int | None:
        """Tokens of the prompt without one of its parts."""
        try:
            return self._ask(parts.content(without=left_out), text, 1, stop).prompt_tokens
        except Refused:  # it may want a picture, say: then it proves nothing
            return None

    # -- proof -----------------------------------------------------------------------------

    def _leave_out(
        self,
        parts: Mapping[int, Parts],
        keys: Mapping[int, str],
        asked: Sequence[Asked],
        replies: Sequence[Reply],
    ) -> None:
        """Ask the first question about a clip again without each part: what do its tokens fall by?

        Only for parts that the server does not count by itself; kept for all further questions.
        """
        first: dict[str, int] = {}
        for row, one in enumerate(asked):
            if keys[one.clip] not in self._grown:
                first.setdefault(keys[one.clip], row)
        wanted = [
            (key, row, name)
            for key, row in first.items()
            for name in parts[asked[row].clip].sent
            if replies[row].told.get(name, 0) < FEWEST_TOKENS
            and replies[row].prompt_tokens is not None
        ]
        jobs = [
            partial(self._without, parts[asked[row].clip], name, prompt(asked[row]))
            for _, row, name in wanted
        ]
        for key in first:
            self._grown[key] = {}
        for (key, row, name), rest in zip(wanted, in_order(jobs, self._concurrency), strict=True):
            whole = replies[row].prompt_tokens
            grown = None if whole is None or rest is None else max(0, whole - rest)
            self._grown[key][name] = grown

    def _consumed(
        self, parts: Parts, reply: Reply, grown: Mapping[str, int | None]
    ) -> Consumed | None:
        """What reached the model with this question; None where that cannot be told."""
        tokens = {"sound": 0, "picture": 0}
        for name in parts.sent:
            told = reply.told.get(name, 0)
            found = told if told >= FEWEST_TOKENS else grown.get(name)
            if found is None:
                return None
            tokens[name] = found if found >= FEWEST_TOKENS else 0
        if reply.prompt_tokens is not None and reply.prompt_tokens < sum(tokens.values()):
            return None  # this request has lost what another one about the clip had
        return Consumed(
            sound=tokens["sound"] > 0,
            picture=tokens["picture"] > 0,
            sound_tokens=tokens["sound"],
            picture_tokens=tokens["picture"],
        )

    # -- answers ---------------------------------------------------------------------------

    def _answer(
        self, asked: Asked, parts: Parts, reply: Reply, grown: Mapping[str, int | None]
    ) -> Answer:
        text, consumed = reply.text, self._consumed(parts, reply, grown)
        return Answer(
            answer=text,
            label=to_choice(text, asked.choices) if asked.choices else to_label(text),
            probability=None if reply.probability is None else round(reply.probability, 4),
            consumed=consumed,
            warnings=tuple(self._warnings(parts, reply, consumed)),
            timing_s={"answer": round(reply.seconds, 4)},
        )

    def _warnings(self, parts: Parts, reply: Reply, consumed: Consumed | None) -> list[str]:
        said = []
        for name in ("sound", "picture"):
            if name not in parts.sent:
                said.append(f"There was no {name} to send.")
            elif consumed is not None and not getattr(consumed, name):
                said.append(f"The {name} was sent, but the server dropped it.")
        if consumed is None:
            said.append("The server does not say what it consumed of the clip.")
        if reply.finish == "length":
            said.append(f"The answer was cut off after {self._most_tokens} tokens.")
        elif reply.finish not in ("stop", ""):
            said.append(f"The server ended the answer because of {reply.finish!r:.40}.")
        if not self._dialect.temperature:
            said.append("The server takes no temperature: another run may answer otherwise.")
        return said


def prompt(asked: Asked) -> str:
    """The question with its answers. The same with and without sound and picture."""
    answers = asked.choices or tuple(label.replace("_", " ") for label in LABELS)
    mark = "; " if any("," in answer for answer in answers) else ", "
    return (
        "Look at the video and listen to its sound, then answer the question.\n"
        f"Question: {asked.question}\n"
        f"Answer with one of the following, in the same words and with nothing else: "
        f"{mark.join(answers)}."
    )


def _require(holds: bool, name: str, value: object, need: str) -> None:
    if not holds:
        raise RunError(f"{name} is {value!r}; it must be {need}")
