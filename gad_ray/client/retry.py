"""One request of a client and when it is tried again, told apart from how it is sent: waiting or asynchronous."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from tenacity import RetryCallState, retry_if_exception_type

from gad_ray.client.schema import (
    BODY_TOO_LONG,
    DEADLINE_EXCEEDED,
    DEADLINE_UNREACHABLE,
    TOO_MANY_PAIRS,
    TOO_MANY_TOKENS,
)
from gad_ray.errors import GadError

_RETRIED = (408, 429, 500, 502, 503, 504)
_TOO_MUCH = (DEADLINE_EXCEEDED, DEADLINE_UNREACHABLE, TOO_MANY_TOKENS, TOO_MANY_PAIRS, BODY_TOO_LONG)
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 30.0


class EndpointError(GadError):
    """The endpoint refused a request, or could not be reached.

    Attributes:
        status: HTTP status; None if there was no answer.
        code: The cause's name in the error envelope.
    """

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        status: int | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.status = status
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.message, self.where, self.hint, self.status, self.code)


class TooMuchError(Exception):
    """A request could not be answered whole; its halves may be."""


def _rebuild(
    message: str, where: str | None, hint: str | None, status: int | None, code: str | None
) -> EndpointError:
    return EndpointError(message, where=where, hint=hint, status=status, code=code)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """How a client behaves.

    Attributes:
        timeout_s: Longest wait for one answer.
        deadline_s: Longest time for one part, with all its attempts.
        max_attempts: Attempts at one part. Being told to come later (429) is none.
        part_pairs: Most pairs in one request.
        part_characters: About the most characters in one request; a longer pair goes alone.
        concurrency: Requests under way at once, of the asynchronous methods.
    """

    timeout_s: float = 90.0
    deadline_s: float = 600.0
    max_attempts: int = 6
    part_pairs: int = 128
    part_characters: int = 200_000
    concurrency: int = 8


Reply = httpx.Response | httpx.RequestError
"""What came of an attempt."""


class _UnansweredError(Exception):
    """An attempt that may succeed when it is made again; holds what came of it."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


class Request:
    """A request, the same in all its attempts.

    Args:
        method: Of HTTP.
        path: Of the URL.
        body: To be sent as JSON.
        divisible: The same can be asked for in smaller requests.
    """

    def __init__(
        self, method: str, path: str, body: Mapping[str, object] | None = None, *, divisible: bool = False
    ) -> None:
        self._divisible = divisible
        headers = {"x-request-id": secrets.token_hex(16)}
        content = None
        if body is not None:
            # As ASCII, so that text which is no Unicode is refused by the service and not by the encoder.
            content = json.dumps(body, allow_nan=False).encode()
            headers["content-type"] = "application/json"
        self.sent: dict[str, Any] = {"method": method, "url": path, "content": content, "headers": headers}
        """What httpx sends."""

    def accepted(self, reply: Reply, url: str) -> httpx.Response:
        """The answer that counts.

        Args:
            reply: What came of an attempt.
            url: The service, for errors.

        Raises:
            EndpointError: If the service refuses.
            TooMuchError: If a divisible request is too large for the service, or for the time that it gives: to
                repeat it as it is would be in vain.
        """
        if self._divisible and _is_too_much(reply):
            raise TooMuchError
        if not isinstance(reply, httpx.Response) or reply.status_code in _RETRIED:
            raise _UnansweredError(reply)
        if reply.status_code >= 400:
            raise _refused(reply, url)
        return reply


def retrying(settings: ClientSettings, *, url: str, jitter: Callable[[], float]) -> dict[str, Any]:
    """What tenacity is told about one request: to repeat it as long as there is hope, then raise EndpointError.

    Args:
        settings: How many attempts there are, and how long they may take.
        url: The service, for errors.
        jitter: Gives the share of a pause that is made, 0 to 1.
    """
    ends = time.monotonic() + settings.deadline_s
    failures = 0

    def wait(state: RetryCallState) -> float:
        return _pause_s(_reply_of(state), state.attempt_number, jitter)

    def stop(state: RetryCallState) -> bool:
        nonlocal failures
        reply = _reply_of(state)
        # Who is told to come later is in a queue, and has not failed: a slow machine answers everybody in the end.
        failures += not (isinstance(reply, httpx.Response) and reply.status_code == 429)
        return failures >= settings.max_attempts or time.monotonic() + state.upcoming_sleep > ends

    def give_up(state: RetryCallState) -> None:
        raise _given_up(_reply_of(state), state.attempt_number, url)

    return {
        "retry": retry_if_exception_type(_UnansweredError),
        "wait": wait,
        "stop": stop,
        "retry_error_callback": give_up,
    }


def _reply_of(state: RetryCallState) -> Reply:
    error = state.outcome.exception() if state.outcome is not None else None
    assert isinstance(error, _UnansweredError)
    return error.reply


def _is_too_much(reply: Reply) -> bool:
    """Whether a smaller request may succeed where this one has not."""
    if not isinstance(reply, httpx.Response) or reply.status_code not in (400, 408, 413):
        return False
    return _told(reply)[1] in _TOO_MUCH


def _pause_s(reply: Reply, attempt: int, jitter: Callable[[], float]) -> float:
    """At least what the service asks for; else up to twice as long each time, at random within the second half."""
    longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt)
    pause = longest * (0.5 + 0.5 * jitter())
    asked = reply.headers.get("retry-after", "") if isinstance(reply, httpx.Response) else ""
    return max(pause, float(asked) * (1.0 + 0.5 * jitter())) if asked.isdecimal() else pause


def _refused(reply: httpx.Response, url: str) -> EndpointError:
    message, code = _told(reply)
    hints = {401: "give the right key", 404: "check the URL and the model's name"}
    return EndpointError(
        f"refused with {reply.status_code}: {message}",
        where=url,
        hint=hints.get(reply.status_code),
        status=reply.status_code,
        code=code,
    )


def _given_up(reply: Reply, attempts: int, url: str) -> EndpointError:
    if isinstance(reply, httpx.Response):
        message, code = _told(reply)
        told, status = f"{reply.status_code}: {message}", reply.status_code
    else:
        told, status, code = f"{type(reply).__name__}: {reply}", None, None
    return EndpointError(
        f"no answer after {attempts} attempts; the last: {told}",
        where=url,
        hint="check that gad-ray serve runs there, and its load",
        status=status,
        code=code,
    )


def _told(reply: httpx.Response) -> tuple[str, str | None]:
    """Message and code of an error envelope, or the beginning of whatever else came."""
    try:
        error: Any = reply.json()["error"]
        return str(error["message"]), None if error["code"] is None else str(error["code"])
    except (ValueError, KeyError, TypeError):
        return reply.text[:200] or "without a word", None
