"""What the endpoint says when it says no: OpenAI's error envelope, with a status that fits."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from gad_ray.client.schema import DEADLINE_EXCEEDED
from gad_ray.errors import GadError

INVALID = "invalid_request_error"
AUTHENTICATION = "authentication_error"
OVERLOADED = "rate_limit_error"
UNAVAILABLE = "service_unavailable_error"
INTERNAL = "server_error"


class ApiError(GadError):
    """A request that gets no scores.

    Args:
        message: What is wrong, for the client; never a text that was to be scored.
        status: HTTP status.
        code: Name of the cause, for programs.
        param: The field it concerns.
        kind: ``type`` in the envelope.
        retry_after_s: When another attempt makes sense.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str,
        param: str | None = None,
        kind: str = INVALID,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.kind = kind
        self.retry_after_s = retry_after_s
        self._headers = dict(headers or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (
            self.message,
            self.status,
            self.code,
            self.param,
            self.kind,
            self.retry_after_s,
            self._headers,
        )

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer; Retry-After is in whole seconds, at least one."""
        if self.retry_after_s is None:
            return self._headers
        return {**self._headers, "retry-after": str(max(1, math.ceil(self.retry_after_s)))}

    @property
    def body(self) -> dict[str, dict[str, str | None]]:
        """The envelope."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def unavailable(message: str, code: str) -> ApiError:
    """503: not now, but in a second perhaps."""
    return ApiError(message, status=503, code=code, kind=UNAVAILABLE, retry_after_s=1.0)


def queue_full(message: str, *, retry_after_s: float = 1.0) -> ApiError:
    """429: more waits already than may."""
    return ApiError(message, status=429, code="queue_full", kind=OVERLOADED, retry_after_s=retry_after_s)


def deadline_exceeded(message: str) -> ApiError:
    """408: the time is over. Fewer pairs at once may be scored in it."""
    return ApiError(message, status=408, code=DEADLINE_EXCEEDED, kind=OVERLOADED)


def unforeseen() -> ApiError:
    """500: an error that is no client's business; the log tells it."""
    return ApiError("something went wrong here", status=500, code="internal_error", kind=INTERNAL)


async def send_refusal(send: Callable[[dict[str, Any]], Awaitable[None]], error: ApiError) -> None:
    """Answer an ASGI request with an error, in the envelope.

    Args:
        send: Of the request.
        error: Why it gets no scores.
    """
    body = json.dumps(error.body).encode()
    headers = {**error.headers, "content-type": "application/json", "content-length": str(len(body))}
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def _rebuild(
    message: str,
    status: int,
    code: str,
    param: str | None,
    kind: str,
    retry_after_s: float | None,
    headers: dict[str, str],
) -> ApiError:
    return ApiError(
        message,
        status=status,
        code=code,
        param=param,
        kind=kind,
        retry_after_s=retry_after_s,
        headers=headers,
    )
