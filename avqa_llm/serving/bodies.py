"""JSON bodies, read and checked by ourselves: within limits, and with errors in OpenAI's words."""

from __future__ import annotations

from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from avqa_llm.serving.intake import Intake
from avqa_llm.serving.middleware import USER
from avqa_llm.serving.refusals import Refusal
from avqa_llm.serving.schema import refused

B = TypeVar("B", bound=BaseModel)
_LARGE = 1 << 20
"""Bytes from which on a body is parsed in a thread."""


async def json_body(request: Request, model: type[B], intake: Intake) -> B:
    """The body of a request. Raises Refusal."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        # Also what keeps pages of other sites out: a browser asks before it sends this type.
        raise Refusal(415, "Send JSON (Content-Type: application/json).", code="wrong_type")
    raw = b"".join([block async for block in request.stream()])  # `body()` would keep it
    try:
        if len(raw) < _LARGE:
            return model.model_validate_json(raw)
        return await intake.aside(model.model_validate_json, raw)
    except ValidationError as error:
        raise refused(error) from None


def owner_of(request: Request) -> str:
    """Whoever sent a request, as the folder of its uploads is named."""
    return str(request.scope[USER].owner)


def body_schema(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says about a body that is read by `json_body`."""
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": reference}}}
    }
