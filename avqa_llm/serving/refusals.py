"""What goes wrong, as OpenAI's error object with the right status; nothing of the server shows."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from avqa_llm.errors import AVQAError, MediaError
from avqa_llm.serving.contract import RetryableError, UnknownModelError

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "timeout_error",
}
# A hint for those who call the library, which somebody on the other side of HTTP cannot follow.
_HINT = re.compile(r",? or raise MediaLimits\([^)]*\)[^;.]*|; raise MediaLimits\([^)]*\)[^;.]*")
_PATH = re.compile(r"(?<![\w:/.])(?:/[\w.@+~-]+){2,}/?")


class Refusal(AVQAError):
    """A request that is not answered, and why."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`status`: of HTTP; `param`: the field that is to blame; `after_s`: when to ask again."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        if after_s is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(after_s)))
        if status == HTTPStatus.UNAUTHORIZED:
            self.headers["WWW-Authenticate"] = "Bearer"

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, "invalid_request_error"),
                "param": self.param,
                "code": self.code,
            }
        }


def refusal_of(error: BaseException, names: Mapping[str, str] | None = None) -> Refusal:
    """The refusal that an error becomes.

    `names`: paths of the server to what the sender calls them.
    """
    if isinstance(error, Refusal):
        return error
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        return Refusal(504, "The answer took too long and was given up.", code="timeout")
    if not isinstance(error, AVQAError):
        return Refusal(500, "Something went wrong here; it is in the server's log.", code="bug")
    message = for_strangers(str(error), names)
    if isinstance(error, UnknownModelError):
        return Refusal(404, message, code="model_not_found", param="model")
    if isinstance(error, RetryableError):
        return Refusal(503, message, code="try_again", after_s=error.after_s)
    if isinstance(error, MediaError):
        return Refusal(400, message, code="media_refused")
    return Refusal(400, message, code="refused")


def for_strangers(message: str, names: Mapping[str, str] | None = None) -> str:
    """A message without paths of this machine, or hints that only its owner can follow."""
    for path, name in (names or {}).items():
        message = message.replace(path, name)
    return _PATH.sub("a file of the server", _HINT.sub("", message))
