"""What stands before Ray Serve's own proxy: it mends what no replica can mend.

The proxy fails with a bare 500 on a request id that is not UTF-8, lets a request set its own time limit, answers for
itself in plain text, and gives a request up with its replica. Ray takes these middlewares by their import path, from
the environment that the cluster is started in:

    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=gad_ray.serving.deployment.proxy.middlewares

``gad-ray serve`` sets it for a cluster of its own.
"""

from __future__ import annotations

import re

from starlette.middleware import Middleware

from gad_ray.serving.application.body import Message, Receive
from gad_ray.serving.application.errors import (
    ApiError,
    deadline_exceeded,
    queue_full,
    send_refusal,
    unavailable,
    unforeseen,
)
from gad_ray.serving.application.guard import Application, Scope, Send

IMPORT_PATH = "gad_ray.serving.deployment.proxy.middlewares"
PATH_VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"

CLUSTER_VARIABLES = {
    PATH_VARIABLE: IMPORT_PATH,
    # Serve kills a proxy that is not up in 5 s, which a machine that loads models at the same time may well need.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
}
"""Environment of a cluster on which critics are served."""

_ATTEMPTS = 2
"""A request whose replica is lost is scored by another one, once: scoring twice gives the same."""

_KEPT_BYTES = 16 * 1024 * 1024
"""Longest body that is kept for a second attempt."""

_FOR_SERVE = re.compile(
    rb"x-request-timeout-seconds|x-request-disconnect-disabled|serve[-_]multiplexed[-_]model[-_]id|.*session[-_]id"
)
"""Headers that steer the proxy itself: not for clients."""

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")


class ProxyGuard:
    """ASGI middleware for the process that listens.

    Args:
        app: Serve's proxy.
    """

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, and see that it gets an answer in the envelope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = [(key, value) for key, value in scope["headers"] if _passes(key.lower(), value)]
        body = _KeptBody(receive)
        answer = _Answer(send)
        for attempt in range(_ATTEMPTS):
            # The proxy adds to the headers.
            await self._app({**scope, "headers": list(headers)}, body.again(), answer)
            if answer.started or body.is_gone:
                return
            if not body.is_whole or attempt == _ATTEMPTS - 1:
                break
        await answer.refuse(_lost())


class _KeptBody:
    """Remembers a request's body as it is read, so that it can be read once more."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._parts: list[Message] = []
        self._size = 0
        self.is_whole = False
        self.is_gone = False

    def again(self) -> Receive:
        """Gives the body from its beginning, then whatever the client does next."""
        known = list(self._parts)

        async def receive() -> Message:
            if known:
                return known.pop(0)
            message = await self._receive()
            self._note(message)
            return message

        return receive

    def _note(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self.is_gone = True
            return
        self._size += len(message.get("body", b""))
        if self._size > _KEPT_BYTES:
            self._parts.clear()
            return
        self._parts.append(message)
        self.is_whole = not message.get("more_body", False)


class _Answer:
    """Passes an application's answer on; what the proxy says for itself is put into the envelope."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self._replaced = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            error = _own_words(message)
            if error is not None:
                self._replaced = True
                await send_refusal(self._send, error)
                return
        if not self._replaced:
            await self._send(message)

    async def refuse(self, error: ApiError) -> None:
        self.started = True
        await send_refusal(self._send, error)


def middlewares() -> list[Middleware]:
    """For Ray Serve: what it puts around its proxy."""
    return [Middleware(ProxyGuard)]


def _passes(name: bytes, value: bytes) -> bool:
    if name == b"x-request-id":
        return _REQUEST_ID.fullmatch(value) is not None
    return _FOR_SERVE.fullmatch(name) is None


def _own_words(message: Message) -> ApiError | None:
    """The error behind an answer of the proxy's own; None for an answer of the application.

    The application answers in JSON, always. The proxy says 200 to its own health check, in plain text.
    """
    kinds = [value for key, value in message.get("headers", []) if key.lower() == b"content-type"]
    status = int(message["status"])
    if status < 400 or any(kind.startswith(b"application/json") for kind in kinds):
        return None
    if status == 408:
        return deadline_exceeded("no answer came in time")
    if status == 429:
        return queue_full("too many requests are waiting")
    if status in (404, 503):
        return unavailable("no critic is served at the moment", "not_ready")
    return unforeseen()


def _lost() -> ApiError:
    return unavailable("the replica that had this request is gone; asking again is safe", "replica_lost")
