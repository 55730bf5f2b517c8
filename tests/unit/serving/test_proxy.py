import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from gad_ray.serving.deployment.proxy import ProxyGuard, middlewares

Sent = list[dict[str, Any]]


def start(status: int, kind: bytes = b"application/json") -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]}


class Proxy:
    """Answers attempts as it is told; None: its replica is lost."""

    def __init__(self, *answers: dict[str, Any] | None, reads: bool = True) -> None:
        self.answers = list(answers)
        self.reads = reads
        self.scopes: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        scope["headers"].append((b"x-added", b"1"))
        body = b""
        while self.reads:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            if not message.get("more_body"):
                break
        self.bodies.append(body)
        answer = self.answers.pop(0)
        if answer is not None:
            await send(answer)
            await send({"type": "http.response.body", "body": b"as it is"})


def run(
    proxy: Proxy, *, headers: Any = (), parts: tuple[bytes, ...] = (b"one ", b"two"), gone: bool = False
) -> Sent:
    sent: Sent = []

    async def call() -> None:
        waiting: list[dict[str, Any]] = [
            {"type": "http.request", "body": part, "more_body": i < len(parts) - 1}
            for i, part in enumerate(parts)
        ]

        async def receive() -> dict[str, Any]:
            return waiting.pop(0) if waiting and not gone else {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await middlewares()[0].cls(proxy)({"type": "http", "headers": list(headers)}, receive, send)

    asyncio.run(call())
    return sent


def code_of(sent: Sent) -> tuple[int, str]:
    assert len(sent) == 2
    assert (b"content-type", b"application/json") in sent[0]["headers"]
    return sent[0]["status"], json.loads(sent[1]["body"])["error"]["code"]


@pytest.mark.parametrize("status", [200, 400, 429, 500])
def test_an_answer_of_the_application_passes_as_it_is(status: int):
    proxy = Proxy(start(status))
    assert run(proxy) == [start(status), {"type": "http.response.body", "body": b"as it is"}]
    assert proxy.bodies == [b"one two"]


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (404, (503, "not_ready")),
        (503, (503, "not_ready")),
        (429, (429, "queue_full")),
        (408, (408, "deadline_exceeded")),
        (500, (500, "internal_error")),
    ],
)
def test_what_the_proxy_says_itself_is_put_into_the_envelope(status: int, told: tuple[int, str]):
    assert code_of(run(Proxy(start(status, b"text/plain; charset=utf-8")))) == told


def test_a_request_whose_replica_is_lost_is_asked_once_more_with_its_whole_body():
    proxy = Proxy(None, start(200))
    assert run(proxy)[0]["status"] == 200
    assert proxy.bodies == [b"one two", b"one two"]
    assert proxy.scopes[1]["headers"] == [(b"x-added", b"1")], "a scope of its own"


def test_a_request_that_loses_two_replicas_is_told_so():
    proxy = Proxy(None, None)
    sent = run(proxy)
    assert code_of(sent) == (503, "replica_lost")
    assert (b"retry-after", b"1") in sent[0]["headers"]
    assert len(proxy.bodies) == 2


def test_a_body_that_was_not_read_to_its_end_is_not_sent_twice():
    proxy = Proxy(None, reads=False)
    assert code_of(run(proxy)) == (503, "replica_lost")


def test_a_client_that_has_gone_gets_nothing():
    assert run(Proxy(None), gone=True) == []


@pytest.mark.parametrize(
    "header",
    [
        (b"x-request-id", b"\xff\xfe"),
        (b"x-request-id", b"x" * 200),
        (b"X-Request-Timeout-Seconds", b"0.001"),
        (b"x-request-disconnect-disabled", b"?1"),
        (b"serve_multiplexed_model_id", b"other"),
        (b"serve-multiplexed-model-id", b"other"),
        (b"x-session-id", b"\xff"),
    ],
)
def test_headers_that_would_steer_or_break_the_proxy_do_not_reach_it(header: tuple[bytes, bytes]):
    proxy = Proxy(start(200))
    run(proxy, headers=[header, (b"authorization", b"Bearer x"), (b"x-request-id", b"fine-1")])
    assert proxy.scopes[0]["headers"][:2] == [(b"authorization", b"Bearer x"), (b"x-request-id", b"fine-1")]


def test_what_is_not_http_passes():
    seen: list[str] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope["type"])

    unused: Callable[..., Any] = lambda *_: None  # noqa: E731
    asyncio.run(ProxyGuard(app)({"type": "lifespan"}, unused, unused))
    assert seen == ["lifespan"]
