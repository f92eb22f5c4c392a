"""Why a request was not answered, as HTTP says it."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

BAD_REQUEST = 400
NOT_FOUND = 404
BODY_TIMEOUT = 408
BODY_TOO_LARGE = 413
NOT_JSON = 415
TOO_MANY = 429
FAILED = 500
LATE = 503

MOST_CHARACTERS = 1000
"""Of a message, which may quote what was sent; as Triton's ``recommend`` cuts it."""


class Refusal(Exception):
    """The request gets this status, ``{"error": message}``, and Retry-After where trying again may help."""

    def __init__(self, status: int, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s

    def response(self) -> JSONResponse:
        """What is sent. After a body that was not read to its end, the connection is closed."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        if self.status in (BODY_TIMEOUT, BODY_TOO_LARGE):
            headers["Connection"] = "close"
        content: dict[str, Any] = {"error": _sendable(self.message[:MOST_CHARACTERS])}
        return JSONResponse(content, self.status, headers)


def _sendable(message: str) -> str:
    """The message with lone surrogates, which a quoted text may hold, written as escapes; UTF-8 cannot carry them."""
    return message.encode("utf-8", "backslashreplace").decode("utf-8")
