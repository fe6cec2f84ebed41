"""`/v1/files`: uploads are received piece by piece, within the sender's quota."""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, BinaryIO, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.background import BackgroundTask

from avqa_llm.serving.bodies import owner_of
from avqa_llm.serving.guards import Places
from avqa_llm.serving.intake import Intake
from avqa_llm.serving.metrics import Metrics
from avqa_llm.serving.refusals import Refusal
from avqa_llm.serving.schema import Deleted, FileCard, FileList
from avqa_llm.serving.settings import GatewaySettings
from avqa_llm.serving.uploads import Incoming, Upload, Uploads

_FIELD_BYTES, _PARTS = 4096, 16
_BLOCK = 1 << 20
_PURPOSE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SHORTEST_S = 60
_FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "A video or a sound."},
        "purpose": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$", "default": "user_data"},
        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
        "expires_after[seconds]": {"type": "integer", "minimum": _SHORTEST_S},
    },
}


class Form:
    """A multipart form whose one file is handed on as it comes. Feed it, then `end` it."""

    def __init__(self, boundary: bytes) -> None:
        """Raises FormParserError."""
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.fresh = bytearray()
        """Bytes of the file that were not taken yet."""
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._about = b""
        self._name: str | None = None
        self._value = bytearray()
        self._parts, self._is_file, self._is_whole = 0, False, False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._header_end,
                "on_headers_finished": self._open,
                "on_part_data": self._data,
                "on_part_end": self._close,
                "on_end": self._end,
            },
        )

    def feed(self, block: bytes) -> None:
        """Raises FormParserError, Refusal."""
        self._parser.write(block)

    def end(self) -> None:
        """Raises FormParserError, Refusal: the form is cut short, or without a file."""
        self._parser.finalize()
        if not self._is_whole:
            raise _bad("the form ends in the middle")
        if self.filename is None:
            raise _bad("the form has no file in a field named 'file'")

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > _PARTS:
            raise _bad(f"the form has more than {_PARTS} fields")
        self._about, self._name, self._is_file = b"", None, False
        self._value.clear()

    def _header_end(self) -> None:
        name, value = self._header
        if bytes(name).lower() == b"content-disposition":
            self._about = bytes(value)
        name.clear()
        value.clear()

    def _open(self) -> None:
        _, options = parse_options_header(self._about.decode("latin-1"))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")[:100]
        if self._name == "file":
            if self.filename is not None:
                raise _bad("the form has two files: send one at a time")
            self._is_file = True
            self.filename = shown(options.get(b"filename", b"").decode("utf-8", "replace"))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.fresh += data[start:end]
            return
        self._value += data[start:end]
        if len(self._value) > _FIELD_BYTES:
            raise _bad(f"a field of the form has more than {_FIELD_BYTES} bytes")

    def _close(self) -> None:
        if not self._is_file and self._name:
            self.fields[self._name] = self._value.decode("utf-8", "replace")

    def _end(self) -> None:
        self._is_whole = True


def shown(name: str) -> str:
    """What a sender calls a file, as text: no folders, nothing that moves a cursor."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    plain = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in last)
    return plain.strip(" .")[:200] or "unnamed"


def _bad(what: str) -> Refusal:
    return Refusal(400, f"{what[0].upper()}{what[1:]}.", code="invalid_request", param="file")


class Files:
    """What can be done with uploads."""

    def __init__(self, settings: GatewaySettings, intake: Intake, metrics: Metrics) -> None:
        self._settings, self._intake, self._metrics = settings, intake, metrics
        self._store = intake.uploads
        self.places = Places(
            settings.max_uploads_running, settings.max_waiting, "uploads", share=settings.share
        )

    async def receive(self, request: Request) -> FileCard:
        """Take one upload. Raises Refusal."""
        kind, options = parse_options_header(request.headers.get("content-type"))
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise Refusal(
                415, "Send a form (multipart/form-data) with the field 'file'.", code="wrong_type"
            )
        owner = owner_of(request)
        async with self.places.place(owner):
            taken = self._take(request, owner, options[b"boundary"])
            try:
                upload = await asyncio.wait_for(taken, self._settings.upload_timeout_s)
            except asyncio.TimeoutError:
                raise Refusal(408, "The upload took too long.", code="timeout") from None
        self._metrics.uploaded.inc()
        self._metrics.uploaded_bytes.inc(upload.bytes)
        return card(upload)

    async def _take(self, request: Request, owner: str, boundary: bytes) -> Upload:
        aside = self._intake.aside
        incoming = await aside(self._store.begin, owner)
        try:
            form = await self._read(request, boundary, incoming)
            purpose, ttl_s = _wishes(form.fields)
            if not incoming.bytes:
                raise _bad("the file is empty")
            await aside(incoming.close)
            name = str(form.filename)
            media = await self._intake.look(incoming.path, name)
            return await aside(
                self._store.keep,
                incoming,
                filename=name,
                purpose=purpose,
                media=media,
                ttl_s=ttl_s,
            )
        finally:
            incoming.drop()  # what was kept is elsewhere by now

    async def _read(self, request: Request, boundary: bytes, incoming: Incoming) -> Form:
        try:
            form = Form(boundary)
            async for block in request.stream():
                form.feed(block)
                if len(form.fresh) >= _BLOCK:
                    await self._flush(form, incoming)
            form.end()
        except FormParserError:
            raise _bad("the form cannot be read") from None
        await self._flush(form, incoming)
        return form

    async def _flush(self, form: Form, incoming: Incoming) -> None:
        block = bytes(form.fresh)
        form.fresh.clear()
        await self._intake.aside(incoming.write, block)

    async def run(self, work: Callable[..., Any], *args: Any) -> Any:
        """Call a method of the store in a thread."""
        return await self._intake.aside(work, *args)


def _wishes(fields: dict[str, str]) -> tuple[str, float | None]:
    """Purpose, and seconds to be kept."""
    purpose = fields.get("purpose", "user_data")
    if not _PURPOSE.fullmatch(purpose):
        raise Refusal(
            400, "purpose: letters, digits, _ . - only.", code="invalid_request", param="purpose"
        )
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor not in (None, "created_at"):
        raise Refusal(
            400,
            "expires_after[anchor]: is created_at.",
            code="invalid_request",
            param="expires_after",
        )
    if seconds is None:
        return purpose, None
    if not re.fullmatch(r"[0-9]{1,10}", seconds) or int(seconds) < _SHORTEST_S:
        raise Refusal(
            400,
            f"expires_after[seconds]: is a number from {_SHORTEST_S} on.",
            code="invalid_request",
            param="expires_after",
        )
    return purpose, float(seconds)


def card(upload: Upload) -> FileCard:
    """An upload in OpenAI's words."""
    return FileCard(
        id=upload.id,
        bytes=upload.bytes,
        created_at=upload.created_at,
        expires_at=upload.expires_at,
        filename=upload.filename,
        purpose=upload.purpose,
        avqa=upload.media,
    )


def file_routes(files: Files) -> APIRouter:
    """The routes of uploads."""
    router, store = APIRouter(tags=["files"]), files._store

    @router.post(
        "/v1/files",
        summary="Upload a video or a sound",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"multipart/form-data": {"schema": _FORM}},
            }
        },
    )
    async def upload(request: Request) -> FileCard:
        return await files.receive(request)

    @router.get("/v1/files", summary="Your uploads")
    async def list_files(
        request: Request,
        purpose: Annotated[str | None, Query(max_length=64)] = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
        order: Literal["asc", "desc"] = "desc",
        after: Annotated[str | None, Query(max_length=64)] = None,
    ) -> FileList:
        found = await files.run(store.all, owner_of(request))
        found = [one for one in found if purpose in (None, one.purpose)]
        if order == "asc":
            found.reverse()
        names = [one.id for one in found]
        start = names.index(after) + 1 if after in names else 0
        page = found[start : start + limit]
        return FileList(
            data=[card(one) for one in page],
            first_id=page[0].id if page else None,
            last_id=page[-1].id if page else None,
            has_more=start + limit < len(found),
        )

    @router.get("/v1/files/{file_id}", summary="One of your uploads")
    async def get_file(request: Request, file_id: str) -> FileCard:
        found, _ = await files.run(store.get, owner_of(request), file_id)
        return card(found)

    @router.delete("/v1/files/{file_id}", summary="Delete one of your uploads")
    async def delete_file(request: Request, file_id: str) -> Deleted:
        await files.run(store.delete, owner_of(request), file_id)
        return Deleted(id=file_id, object="file")

    @router.get(
        "/v1/files/{file_id}/content",
        summary="The bytes of one of your uploads",
        response_class=StreamingResponse,
        responses={
            200: {
                "content": {
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
                }
            }
        },
    )
    async def content(request: Request, file_id: str) -> StreamingResponse:
        found, file = await files.run(_opened, store, owner_of(request), file_id)
        name = quote(found.filename, safe="")
        headers = {
            "Content-Length": str(found.bytes),
            "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        }
        return StreamingResponse(
            iter(partial(file.read, _BLOCK), b""),
            media_type="application/octet-stream",
            headers=headers,
            background=BackgroundTask(file.close),
        )

    return router


def _opened(store: Uploads, owner: str, file_id: str) -> tuple[Upload, BinaryIO]:
    """An upload and its bytes, which stay readable though it be deleted meanwhile.

    Raises Refusal.
    """
    while True:
        found, path = store.get(owner, file_id)
        with suppress(FileNotFoundError):  # deleted just now: the next look says so
            return found, path.open("rb")
