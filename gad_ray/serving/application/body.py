"""The bytes of a request: whole, in time, within the limit, and unpacked."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gad_ray.client.schema import BODY_TOO_LONG
from gad_ray.config.endpoint import Limits
from gad_ray.serving.application.errors import ApiError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


class ClientGoneError(Exception):
    """Nobody waits for an answer any more."""


async def read_body(receive: Receive, limits: Limits, *, length: bytes | None, encoding: bytes) -> bytes:
    """Read and unpack a request's body.

    Args:
        receive: Gives the parts.
        limits: How long and how slow it may be.
        length: The header Content-Length.
        encoding: The header Content-Encoding.

    Raises:
        ApiError: 408 for a client that is too slow, 413 for a body that is too long as sent or unpacked, 415 for an
            unknown encoding, 400 for a broken one.
        ClientGoneError: If the client hangs up.
    """
    coding = encoding.strip().lower()
    if coding not in (b"", b"identity", b"gzip"):
        raise ApiError(
            "the body is encoded in a way that is not known here; send it plain or as gzip",
            status=415,
            code="unsupported_encoding",
            headers={"accept-encoding": "gzip"},
        )
    if length is not None and length.isdigit() and int(length[:20]) > limits.max_body_bytes:
        raise _too_long(limits)
    try:
        body = await asyncio.wait_for(_read_all(receive, limits), limits.body_timeout_s)
    except TimeoutError:
        raise ApiError(
            f"the request was not there within {limits.body_timeout_s:g} s",
            status=408,
            code="request_too_slow",
            headers={"connection": "close"},
        ) from None
    return _unpacked(body, limits) if coding == b"gzip" else body


async def _read_all(receive: Receive, limits: Limits) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limits.max_body_bytes:
            raise _too_long(limits)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _unpacked(body: bytes, limits: Limits) -> bytes:
    """Never unpacks more than the limit, however much the body promises."""
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        plain = unpacker.decompress(body, limits.max_body_bytes + 1)
    except zlib.error:
        raise _broken() from None
    if len(plain) > limits.max_body_bytes:
        raise _too_long(limits)
    if not unpacker.eof or unpacker.unused_data:
        raise _broken()
    return plain


def _broken() -> ApiError:
    return ApiError("the body is not one whole gzip stream", code="invalid_gzip")


def _too_long(limits: Limits) -> ApiError:
    return ApiError(
        f"the body is longer than {limits.max_body_bytes} bytes",
        status=413,
        code=BODY_TOO_LONG,
        headers={"connection": "close"},
    )
