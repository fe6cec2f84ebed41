"""`/v1/chat/completions`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from avqa_llm.errors import AVQAError
from avqa_llm.serving.bodies import body_schema, json_body, owner_of
from avqa_llm.serving.contract import Delta, Done, Service, Started, UnknownModelError
from avqa_llm.serving.conversation import Talk, understood
from avqa_llm.serving.guards import Places
from avqa_llm.serving.intake import Intake
from avqa_llm.serving.metrics import Metrics
from avqa_llm.serving.refusals import Refusal, refusal_of
from avqa_llm.serving.replies import END, Reply, event
from avqa_llm.serving.running import Deadline, Running, while_connected
from avqa_llm.serving.schema import ChatReply, ChatRequest
from avqa_llm.serving.settings import GatewaySettings

log = logging.getLogger("avqa.gateway")
_LATE_S = 5.0
"""After its deadline a stream whose reader does not read is cut off."""


class Chat:
    """Answers questions of the protocol with a service."""

    def __init__(
        self, service: Service, settings: GatewaySettings, intake: Intake, metrics: Metrics
    ) -> None:
        self._service, self._settings = service, settings
        self._intake, self._metrics = intake, metrics
        self.places = Places(
            settings.max_running, settings.max_waiting, "answers", share=settings.share
        )

    async def complete(self, request: Request) -> Response:
        """Answer one request. Raises Refusal."""
        arrived, deadline = time.monotonic(), Deadline(self._settings.request_timeout_s)
        body = await json_body(request, ChatRequest, self._intake)
        talk = understood(body, self._settings)
        if body.model not in {model.name for model in self._service.models()}:
            raise _unknown(body.model)
        stack = AsyncExitStack()
        try:
            names: dict[str, str] = {}
            reply = Reply(body=body, warnings=talk.warnings)
            work = self._begin(talk, owner_of(request), deadline, stack, names)
            body.messages.clear()  # its media weigh too much to be kept until the answer is there
            del talk
            running, started = await while_connected(request.receive, work, deadline)
            self._metrics.first.observe(time.monotonic() - arrived)
            reply.begin(started)
            if body.stream:
                chunks = self._stream(running, reply, names)
                return _Events(chunks, stack.pop_all(), deadline)
            whole = self._whole(running, reply)
            done = await while_connected(request.receive, whole, deadline)
            return Response(reply.whole(done).model_dump_json(), media_type="application/json")
        except AVQAError as error:
            raise refusal_of(error, names) from error
        finally:
            await stack.aclose()

    async def _begin(
        self,
        talk: Talk,
        owner: str,
        deadline: Deadline,
        stack: AsyncExitStack,
        names: dict[str, str],
    ) -> tuple[Running, Started]:
        """Wait for a place, take the media in, and start the answer."""
        await stack.enter_async_context(self.places.place(owner))
        scratch = stack.enter_context(self._intake.uploads.scratch())
        media, called = await self._intake.attached(talk.refs, owner, scratch)
        names.update(called)
        running = Running(self._service, replace(talk.ask, media=media), deadline)
        stack.push_async_callback(running.close)
        started = await running.next()
        if not isinstance(started, Started):
            raise RuntimeError(f"the service began with {type(started).__name__}")
        return running, started

    async def _whole(self, running: Running, reply: Reply) -> Done:
        async for step in running.rest():
            if isinstance(step, Delta):
                reply.add(step)
            elif isinstance(step, Done):
                self._metrics.answered(step, reply.started.prompt_tokens if reply.started else 0)
                return step
        raise RuntimeError("the service ended without a Done")

    async def _stream(
        self, running: Running, reply: Reply, names: dict[str, str]
    ) -> AsyncIterator[bytes]:
        yield reply.first()
        try:
            async for step in running.rest():
                if isinstance(step, Delta):
                    reply.add(step)
                    yield reply.more(step)
                elif isinstance(step, Done):
                    asked = reply.started.prompt_tokens if reply.started else 0
                    self._metrics.answered(step, asked)
                    for chunk in reply.last(step):
                        yield chunk
        except Exception as error:
            refusal = refusal_of(error, names)
            if refusal.status == 500:
                log.exception("an answer failed in the middle")
            self._metrics.refused.labels(refusal.code).inc()
            yield event(refusal.body())
            yield END


class _Events(StreamingResponse):
    """A stream of events that lets go of what it holds however it ends, even before it begins."""

    def __init__(
        self, chunks: AsyncIterator[bytes], holds: AsyncExitStack, deadline: Deadline
    ) -> None:
        super().__init__(
            chunks, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )
        self._holds, self._deadline = holds, deadline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = super().__call__(scope, receive, send)
        try:
            await asyncio.wait_for(sending, self._deadline.left_s() + _LATE_S)
        except asyncio.TimeoutError:
            pass  # its reader does not read
        finally:
            await self._holds.aclose()


def _unknown(name: str) -> Refusal:
    error = UnknownModelError(f"No model {name[:80]!r} is served here; GET /v1/models lists them.")
    return refusal_of(error)


def chat_routes(chat: Chat) -> APIRouter:
    """The routes of chats."""
    router = APIRouter(tags=["chat"])
    streams = {"text/event-stream": {"schema": {"type": "string"}}}

    @router.post(
        "/v1/chat/completions",
        summary="Ask about a video or a sound",
        responses={200: {"model": ChatReply, "content": streams}},
        openapi_extra=body_schema(ChatRequest),
    )
    async def complete(request: Request) -> Response:
        return await chat.complete(request)

    return router
