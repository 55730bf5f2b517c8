"""What stands before the application: request id, key, limits, metrics and access log, for every request alike.

Plain ASGI, and inside the replica: Ray Serve's proxy has no authentication and no limits, and passes everything on.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from gad_ray.addresses import is_loopback, is_own_name
from gad_ray.config.endpoint import Limits
from gad_ray.serving.application.body import ClientGoneError, Message, Receive, read_body
from gad_ray.serving.application.errors import AUTHENTICATION, ApiError, queue_full, send_refusal, unforeseen
from gad_ray.serving.application.keys import KEYS_VARIABLE, KeyRing
from gad_ray.serving.application.metrics import SCORING_ROUTES, ServingMetrics, Work, log_access, route_of

Scope = Message
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

WORK = "gad_ray.work"
"""Key of the request's :class:`Work` in the ASGI scope."""

OPEN_TO_ALL = ("/health", "/ready")
"""Paths that need no key."""

_logger = logging.getLogger("ray.serve.gad_ray")

_INSIDE_PER_QUEUED = 2
"""Requests that may be read, queued or answered at once, for each that may be queued."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_CLIENT_GONE = 499


@dataclass
class _Answer:
    """Notes what is sent."""

    send: Send
    request_id: str
    echo: bool
    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list["tuple[bytes, bytes]"])

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            extra = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
            if self.echo:
                extra.append((b"x-request-id", self.request_id.encode()))
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await self.send(message)


class Guard:
    """Middleware that lets through what is allowed, whole and within the limits.

    Args:
        app: What it stands before.
        keys: Who may come in.
        allowed_hosts: Names that requests may be addressed to besides loopback's. Without them, requests with a key may
            be addressed to any name: a page in a browser has no key.
        limits: How much they may bring.
        metrics: Is told of every request.
        echo_request_id: Send the request's id back; Ray Serve's proxy does that itself.
        clock: Seconds of a monotonic clock.
    """

    def __init__(
        self,
        app: Application,
        *,
        keys: KeyRing,
        limits: Limits,
        metrics: ServingMetrics,
        echo_request_id: bool,
        allowed_hosts: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._keys = keys
        self._allowed_hosts = tuple(allowed_hosts)
        self._limits = limits
        self._metrics = metrics
        self._echo = echo_request_id
        self._clock = clock
        self._num_inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1003})
            return
        started = self._clock()
        answer = _Answer(send, _request_id(scope), self._echo)
        work = Work()
        try:
            await self._serve({**scope, WORK: work}, receive, answer)
        except ApiError as error:
            await send_refusal(answer, error)
        except ClientGoneError:
            answer.status = _CLIENT_GONE
        except Exception:
            _logger.exception("request %s met an error that nobody foresaw", answer.request_id)
            if not answer.status:
                await send_refusal(answer, unforeseen())
        finally:
            seconds = self._clock() - started
            route = route_of(str(scope["path"]))
            status = answer.status or _CLIENT_GONE
            self._metrics.request_done(route=route, status=status, seconds=seconds, work=work)
            log_access(
                request_id=answer.request_id,
                method=str(scope["method"]),
                route=route,
                status=status,
                seconds=seconds,
                work=work,
            )

    async def _serve(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        if scope["path"] in OPEN_TO_ALL:
            # Probes from elsewhere come by address; a page that had its name turned to loopback comes by loopback.
            if not self._keys.required and _is_on_loopback(scope):
                _check_names(scope, self._allowed_hosts)
            await self._pass_on(scope, receive, answer)
            return
        self._check_caller(scope)
        if not self._keys.required or self._allowed_hosts:
            _check_names(scope, self._allowed_hosts)
        # Bodies take memory before anything is known of them.
        if self._num_inside >= _INSIDE_PER_QUEUED * self._limits.max_queued_requests:
            raise queue_full("too many requests are waiting")
        self._num_inside += 1
        try:
            await self._pass_on(scope, receive, answer)
        finally:
            self._num_inside -= 1

    async def _pass_on(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        # Elsewhere the method or the path is wrong, and that is what is told.
        if scope["method"] == "POST" and scope["path"] in SCORING_ROUTES:
            _check_content_type(scope)
        body = await read_body(
            receive,
            self._limits,
            length=_header(scope, b"content-length"),
            encoding=b",".join(_headers(scope, b"content-encoding")),
        )
        await self._app(_plain(scope, len(body)), _replay(body, receive), answer)

    def _check_caller(self, scope: Scope) -> None:
        if not self._keys.required:
            _check_loopback(scope)
            return
        given = _headers(scope, b"authorization")
        scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        if scheme.lower() != b"bearer" or not self._keys.accepts(key.strip()):
            raise ApiError(
                "a key is needed, as: Authorization: Bearer KEY",
                status=401,
                code="invalid_api_key",
                kind=AUTHENTICATION,
                headers={"www-authenticate": "Bearer", "connection": "close"},
            )


def _request_id(scope: Scope) -> str:
    given = _header(scope, b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode("ascii")
    return secrets.token_hex(16)


def _check_loopback(scope: Scope) -> None:
    """Without a key, only this machine is served: however the proxy was bound."""
    if not _is_on_loopback(scope):
        raise ApiError(
            f"this service has no key and answers on loopback alone; set keys with {KEYS_VARIABLE} or a key file",
            status=403,
            code="no_key_set",
            kind=AUTHENTICATION,
        )


def _is_on_loopback(scope: Scope) -> bool:
    """Whether a request came to this machine's own address, or by no address at all."""
    server = scope.get("server")
    return server is None or server[1] is None or is_loopback(str(server[0]))


def _check_names(scope: Scope, allowed: Sequence[str]) -> None:
    """Refuse what a page of another site has a browser send."""
    hosts = _headers(scope, b"host")
    origins = [origin.rpartition(b"://")[2] for origin in _headers(scope, b"origin")]
    # No browser leaves Host out.
    if len(hosts) > 1 or not all(is_own_name(one.decode("latin-1"), allowed) for one in hosts + origins):
        raise ApiError(
            "the Host or Origin header names another host than this service; a name of its own, as behind a proxy, is "
            "allowed with --allowed-host or allowed_hosts",
            status=403,
            code="host_not_allowed",
            kind=AUTHENTICATION,
        )


def _check_content_type(scope: Scope) -> None:
    given = _header(scope, b"content-type") or b""
    kind, _, parameters = given.partition(b";")
    charset = parameters.strip().lower().replace(b'"', b"")
    if kind.strip().lower() != b"application/json" or charset not in (b"", b"charset=utf-8"):
        raise ApiError(
            "the content type must be application/json, in UTF-8", status=415, code="unsupported_media_type"
        )


def _headers(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key.lower() == name]


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next(iter(_headers(scope, name)), None)


def _plain(scope: Scope, length: int) -> Scope:
    """The scope of a request whose body has been read and unpacked."""
    dropped = (b"content-encoding", b"content-length", b"transfer-encoding")
    kept = [(key, value) for key, value in scope["headers"] if key.lower() not in dropped]
    return {**scope, "headers": [*kept, (b"content-length", str(length).encode())]}


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body, then whatever the client does next."""
    parts = [body]

    async def again() -> Message:
        if parts:
            return {"type": "http.request", "body": parts.pop(), "more_body": False}
        return await receive()

    return again
