import asyncio
import gzip
import json
import logging
import zlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from gad_ray.config.endpoint import BatchSettings, Limits
from gad_ray.serving.application.app import build_app
from gad_ray.serving.application.batcher import Batcher
from gad_ray.serving.application.keys import KeyRing
from gad_ray.serving.application.loaded_critic import ServedCritic
from gad_ray.serving.application.metrics import ServingMetrics
from gad_ray.serving.application.service import ScoringService
from tests.unit.serving.metric_library import MetricLibrary

T = TypeVar("T")
KEY = "key-" + "k" * 30
ASKED = {"queries": "Why is the sky blue?", "documents": ["Air.", "secret-text"]}


class Client:
    """Speaks to a fresh application, without a network."""

    def __init__(self, app: Any, service: ScoringService, host: str) -> None:
        self.service = service
        self.app = app
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{host}:8000")

    async def send(self, path: str, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(
            path, content=content, headers={"content-type": "application/json", **named}
        )


def use(
    served: ServedCritic,
    call: Callable[[Client], Awaitable[T]],
    *,
    keys: KeyRing | None = None,
    metrics: MetricLibrary | None = None,
    host: str = "127.0.0.1",
    allowed_hosts: Sequence[str] = (),
    **limits: Any,
) -> T:
    async def run() -> T:
        bounds = Limits(**limits)
        batcher = Batcher(
            BatchSettings(),
            max_queued_tokens=bounds.max_queued_tokens,
            max_queued_requests=bounds.max_queued_requests,
        )
        service = ScoringService(served, name="critic", limits=bounds, batcher=batcher)
        app = build_app(
            service,
            keys=keys or KeyRing(),
            limits=bounds,
            metrics=ServingMetrics(metrics or MetricLibrary()),
            echo_request_id=True,
            allowed_hosts=allowed_hosts,
        )
        client = Client(app, service, host)
        try:
            return await call(client)
        finally:
            await client.http.aclose()
            await service.close()

    return asyncio.run(run())


def post(
    served: ServedCritic,
    body: Any,
    path: str = "/v1/score",
    *,
    keys: KeyRing | None = None,
    headers: dict[str, str] | None = None,
    **limits: Any,
) -> httpx.Response:
    return use(served, lambda client: client.send(path, body, **(headers or {})), keys=keys, **limits)


def assert_refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    return error


# --- Answers


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/score", ASKED),
        ("/v1/score", {"messages": [{"role": "user", "content": "Hi"}], "documents": "Hello"}),
        ("/v1/rerank", {"query": "Hi", "documents": ["a", {"text": "b"}], "model": "critic"}),
        ("/v1/compare", {"prompt": "Hi", "responses": ["a", "b"]}),
        ("/get_reward", {"query": ["Hi there"], "prompts": ["Hi"], "labels": ["x"]}),
    ],
)
def test_every_route_answers_in_json_and_names_the_critic(served: ServedCritic, path: str, body: Any):
    answer = post(served, body, path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["model_version"] == {"fingerprint": served.fingerprint, "step": 12}


def test_the_openapi_page_describes_every_route_with_its_body_and_its_refusals(served: ServedCritic):
    page = use(served, lambda client: client.http.get("/openapi.json")).json()
    assert set(page["paths"]) == {
        "/v1/score", "/v1/rerank", "/v1/compare", "/get_reward", "/v1/models", "/health", "/ready"
    }  # fmt: skip
    score = page["paths"]["/v1/score"]["post"]
    assert score["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/ScoreRequest"
    }
    assert score["responses"]["429"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/ErrorResponse"
    }
    assert page["components"]["schemas"]["ScoreRequest"]["additionalProperties"] is False


def test_ready_says_which_critic_and_draining_says_when_to_come_again(served: ServedCritic):
    async def call(client: Client) -> list[httpx.Response]:
        ready = await client.http.get("/ready")
        await client.service.close()
        return [
            ready,
            await client.http.get("/health"),
            await client.http.get("/ready"),
            await client.send("/v1/score", ASKED),
        ]

    ready, health, *after = use(served, call)
    assert ready.json() == {
        "status": "ready",
        "model_version": {"fingerprint": served.fingerprint, "step": 12},
    }
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    for answer in after:
        assert_refused(answer, 503, "draining")
        assert answer.headers["retry-after"] == "1"


# --- Refusals


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"queries": "Hi"}, "value_error", "body"),
        ({**ASKED, "unknown": 1}, "extra_forbidden", "unknown"),
        ({"queries": "Hi", "documents": []}, None, "documents"),
        ({"queries": 3, "documents": ["a"]}, None, "queries"),
        ({**ASKED, "documents": ["a", 3]}, None, "documents.1"),
        ([], "model_attributes_type", "body"),
        (None, None, "body"),
        ("text", "model_attributes_type", "body"),
        (b"", "missing", "body"),
        (b'{"queries": NaN}', "invalid_number", None),
        (b'{"a": 1, "a": 2}', "duplicate_key", None),
        (b'{"queries": "\\ud800", "documents": "a"}', "lone_surrogate", None),
        (b"\xff\xfe", "invalid_utf8", None),
        (b"[" * 100_000, "nested_too_deeply", None),
    ],
)
def test_a_wrong_body_is_a_400_in_the_envelope(
    served: ServedCritic, body: Any, code: str | None, param: str | None
):
    answer = post(served, body)
    error = assert_refused(answer, 400, code or answer.json()["error"]["code"])
    assert error["type"] == "invalid_request_error"
    if param is not None:
        assert error["param"].startswith(param)


def test_a_refusal_never_repeats_the_texts(served: ServedCritic):
    answer = post(served, {"queries": "secret-text", "documents": [{"text": "secret-text"}], "secret": 1})
    assert answer.status_code == 400
    assert "secret-text" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/score/", 404, "not_found"),
        ("GET", "/v1/score", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("GET", "/docs", 404, "not_found"),
        ("GET", "/../../etc/passwd", 404, "not_found"),
    ],
)
def test_unknown_paths_and_methods_are_told_in_the_envelope(
    served: ServedCritic, method: str, path: str, status: int, code: str
):
    headers = {"content-type": "application/json"}
    assert_refused(
        use(served, lambda client: client.http.request(method, path, headers=headers)), status, code
    )


def test_a_wrong_method_is_told_before_a_wrong_content_type(served: ServedCritic):
    answers = use(served, lambda c: asyncio.gather(c.http.post("/health"), c.http.post("/elsewhere")))
    assert_refused(answers[0], 405, "method_not_allowed")
    assert answers[0].headers["allow"] == "GET"
    assert_refused(answers[1], 404, "not_found")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", ""]
)
def test_other_content_types_are_refused(served: ServedCritic, kind: str):
    assert_refused(post(served, ASKED, headers={"content_type": kind}), 415, "unsupported_media_type")


@pytest.mark.parametrize("kind", ["application/json;charset=UTF-8", 'APPLICATION/JSON; charset="utf-8"'])
def test_json_in_utf8_may_say_so(served: ServedCritic, kind: str):
    assert post(served, ASKED, headers={"content_type": kind}).status_code == 200


# --- Bodies


def test_a_gzipped_body_is_unpacked(served: ServedCritic):
    body = gzip.compress(json.dumps(ASKED).encode())
    assert post(served, body, headers={"content_encoding": "gzip"}).status_code == 200


def test_a_bomb_is_not_unpacked_beyond_the_limit(served: ServedCritic):
    bomb = gzip.compress(b" " * 20_000_000)
    assert len(bomb) < 65_536
    answer = post(served, bomb, headers={"content_encoding": "gzip"}, max_body_bytes=65_536)
    assert_refused(answer, 413, "body_too_long")


@pytest.mark.parametrize(
    ("body", "encoding", "status", "code"),
    [
        (b"not gzip", "gzip", 400, "invalid_gzip"),
        (gzip.compress(b"{}")[:-5], "gzip", 400, "invalid_gzip"),
        (gzip.compress(b"{}") * 2, "gzip", 400, "invalid_gzip"),
        (zlib.compress(b"{}"), "deflate", 415, "unsupported_encoding"),
        (gzip.compress(gzip.compress(b"{}")), "gzip, gzip", 415, "unsupported_encoding"),
        (b"{}", "br", 415, "unsupported_encoding"),
    ],
    # The bytes hold the time, and two workers must collect the same names.
    ids=["no gzip", "cut", "two members", "deflate", "twice", "brotli"],
)
def test_a_broken_or_unknown_encoding_is_refused(
    served: ServedCritic, body: bytes, encoding: str, status: int, code: str
):
    assert_refused(post(served, body, headers={"content_encoding": encoding}), status, code)


def test_a_body_beyond_the_limit_is_refused_whether_it_says_its_length_or_not(served: ServedCritic):
    body = json.dumps({**ASKED, "user": "x" * 3000}).encode()
    assert_refused(post(served, body, max_body_bytes=2048), 413, "body_too_long")

    async def chunked(client: Client) -> httpx.Response:
        async def parts() -> Any:
            for _ in range(10):
                yield b" " * 500

        headers = {"content-type": "application/json"}
        return await client.http.post("/v1/score", content=parts(), headers=headers)

    assert_refused(use(served, chunked, max_body_bytes=2048), 413, "body_too_long")


def scope_of(path: str = "/v1/score") -> dict[str, Any]:
    return {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(b"content-type", b"application/json")], "server": ("127.0.0.1", 8000),
        "scheme": "http", "http_version": "1.1", "root_path": "",
    }  # fmt: skip


def test_a_client_that_never_sends_its_body_is_cut(served: ServedCritic):
    sent: list[dict[str, Any]] = []

    async def call(client: Client) -> None:
        async def receive() -> dict[str, Any]:
            return await asyncio.Event().wait()  # type: ignore[return-value]

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await client.app(scope_of(), receive, send)

    use(served, call, body_timeout_s=0.01)
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["error"]["code"] == "request_too_slow"


def test_a_client_that_hangs_up_gets_nothing_and_is_counted(served: ServedCritic):
    sent: list[Any] = []
    library = MetricLibrary()

    async def call(client: Client) -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await client.app(scope_of(), receive, send)

    use(served, call, metrics=library)
    assert sent == []
    assert library.totals["gad_serve_requests", ("/v1/score", "499")] == 1


# --- Keys


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    (tmp_path / "keys").write_text(f"{KEY}\n")
    return KeyRing(file=tmp_path / "keys")


@pytest.mark.parametrize(
    "authorization",
    [None, "", KEY, f"Basic {KEY}", "Bearer", "Bearer ", f"Bearer {KEY}x", f"Bearer {KEY} {KEY}"],
)
def test_without_its_key_a_request_is_turned_away(
    served: ServedCritic, keys: KeyRing, authorization: str | None
):
    headers = {} if authorization is None else {"authorization": authorization}
    answer = post(served, ASKED, keys=keys, headers=headers)
    assert_refused(answer, 401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert KEY not in answer.text


def test_with_its_key_it_is_answered_and_health_needs_none(served: ServedCritic, keys: KeyRing):
    assert post(served, ASKED, keys=keys, headers={"authorization": f"bearer {KEY}"}).status_code == 200

    async def open_routes(client: Client) -> list[int]:
        paths = ("/health", "/ready", "/openapi.json", "/v1/models")
        return [(await client.http.get(path)).status_code for path in paths]

    assert use(served, open_routes, keys=keys) == [200, 200, 401, 401]


def test_two_keys_at_once_are_no_key(served: ServedCritic, keys: KeyRing):
    headers = [("authorization", f"Bearer {KEY}"), ("authorization", f"Bearer {KEY}")]
    assert use(served, lambda c: c.http.get("/v1/models", headers=headers), keys=keys).status_code == 401


def test_without_keys_only_loopback_is_answered_and_others_are_told_why(served: ServedCritic):
    assert_refused(use(served, lambda c: c.send("/v1/score", ASKED), host="10.0.0.7"), 403, "no_key_set")
    assert use(served, lambda c: c.http.get("/health"), host="10.0.0.7").status_code == 200


ALL_ROUTES = (
    "/v1/score", "/v1/rerank", "/v1/compare", "/get_reward", "/v1/models", "/health", "/ready", "/openapi.json", "/nothing",
)  # fmt: skip


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:8000"},
        {"host": "localhost.evil.example"},
        {"host": "evil.example@localhost"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"host": "localhost:8000", "origin": "http://localhost.evil.example:8000"},
    ],
)
def test_without_keys_no_route_answers_a_page_that_has_its_name_turned_to_this_machine(
    served: ServedCritic, headers: dict[str, str]
):
    async def ask(client: Client) -> list[httpx.Response]:
        methods = {path: "GET" if path in ALL_ROUTES[4:] else "POST" for path in ALL_ROUTES}
        return [await client.http.request(method, path, headers=headers) for path, method in methods.items()]

    for answer in use(served, ask):
        error = assert_refused(answer, 403, "host_not_allowed")
        assert "--allowed-host" in error["message"]
        assert "evil" not in answer.text


@pytest.mark.parametrize("host", ["localhost:8000", "[::1]:8000", "127.0.0.1", "critic.example.org"])
def test_without_keys_loopback_and_allowed_names_are_answered(served: ServedCritic, host: str):
    headers = {"host": host, "origin": f"https://{host}"}
    answer = use(
        served, lambda c: c.send("/v1/score", ASKED, **headers), allowed_hosts=["critic.example.org"]
    )
    assert answer.status_code == 200


def test_two_host_headers_are_refused(served: ServedCritic):
    headers = [("host", "localhost"), ("host", "evil.example")]
    answer = use(served, lambda c: c.http.get("/v1/models", headers=headers))
    assert_refused(answer, 403, "host_not_allowed")


def test_with_keys_any_name_will_do_until_names_are_set(served: ServedCritic, keys: KeyRing):
    headers = {
        "authorization": f"Bearer {KEY}",
        "host": "critic.internal",
        "origin": "https://critic.internal",
    }

    async def ask(client: Client) -> list[int]:
        paths = ("/v1/models", "/health")
        return [(await client.http.get(path, headers=headers)).status_code for path in paths]

    assert use(served, ask, keys=keys) == [200, 200]
    assert use(served, ask, keys=keys, allowed_hosts=["critic.internal"]) == [200, 200]
    # Whether it lives is told to probes, which come by address.
    assert use(served, ask, keys=keys, allowed_hosts=["critic.example.org"]) == [403, 200]


# --- Seen from outside


@pytest.mark.parametrize(("given", "kept"), [("abc-1.2:3", True), ("x" * 129, False), ("two words", False)])
def test_a_usable_request_id_comes_back_and_any_other_is_replaced(
    served: ServedCritic, given: str, kept: bool
):
    found = post(served, ASKED, headers={"x_request_id": given}).headers["x-request-id"]
    assert (found == given) is kept
    assert len(found) <= 128


def test_the_access_log_tells_everything_but_texts_and_keys(
    served: ServedCritic, keys: KeyRing, caplog: pytest.LogCaptureFixture
):
    headers = {"authorization": f"Bearer {KEY}", "x_request_id": "id-7"}
    with caplog.at_level(logging.INFO, logger="ray.serve.gad_ray"):
        post(served, ASKED, keys=keys, headers=headers)
        post(served, {**ASKED, "secret-key-name": 1}, keys=keys, headers=headers)
    first, second = (json.loads(record.message) for record in caplog.records if "access" in record.name)
    assert first.pop("seconds") > 0
    assert first == {
        "request_id": "id-7", "method": "POST", "route": "/v1/score", "status": 200, "pairs": 2,
        "tokens": first["tokens"], "fingerprint": served.fingerprint[:16],
    }  # fmt: skip
    assert second["status"] == 400
    assert "secret" not in caplog.text
    assert KEY not in caplog.text


def test_metrics_count_requests_pairs_and_tokens_under_labels_from_fixed_lists(served: ServedCritic):
    library = MetricLibrary()

    async def call(client: Client) -> int:
        tokens = (await client.send("/v1/score", ASKED)).json()["usage"]["total_tokens"]
        await client.send("/v1/score", {})
        for i in range(20):
            await client.http.get(f"/made-up-{i}")
        return tokens

    tokens = use(served, call, metrics=library)
    assert library.totals["gad_serve_requests", ("/v1/score", "200")] == 1
    assert library.totals["gad_serve_requests", ("/v1/score", "400")] == 1
    assert library.totals["gad_serve_requests", ("other", "404")] == 20
    assert library.totals["gad_serve_pairs", ("/v1/score",)] == 2
    assert library.totals["gad_serve_tokens", ("/v1/score",)] == tokens
    assert len(library.values["gad_serve_request_seconds"]) == 22
    noted = sum(value for value, _ in library.values["gad_serve_request_seconds"])
    exact = sum(v for (name, _), v in library.totals.items() if name == "gad_serve_request_time_seconds")
    assert noted == pytest.approx(exact)


def test_an_error_that_nobody_foresaw_is_a_500_in_the_envelope(
    served: ServedCritic, caplog: pytest.LogCaptureFixture
):
    async def call(client: Client) -> httpx.Response:
        client.service.models = lambda: 1 / 0  # type: ignore[assignment, method-assign]
        return await client.http.get("/v1/models")

    error = assert_refused(use(served, call), 500, "internal_error")
    assert "division" not in error["message"]
    assert "ZeroDivisionError" in caplog.text


def test_requests_that_are_still_being_sent_are_bounded_and_health_answers_all_the_same(served: ServedCritic):
    sent: list[dict[str, Any]] = []

    async def call(client: Client) -> list[httpx.Response]:
        async def never() -> dict[str, Any]:
            return await asyncio.Event().wait()  # type: ignore[return-value]

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        slow = [asyncio.get_running_loop().create_task(client.app(scope_of(), never, send)) for _ in range(4)]
        await asyncio.sleep(0)
        answers = [await client.send("/v1/score", ASKED), await client.http.get("/health")]
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        return [*answers, await client.send("/v1/score", ASKED)]

    refused, health, after = use(served, call, max_queued_requests=2)
    assert_refused(refused, 429, "queue_full")
    assert (health.status_code, after.status_code) == (200, 200)
    assert sent == []


def test_a_full_queue_is_a_429_with_retry_after(served: ServedCritic):
    async def call(client: Client) -> list[httpx.Response]:
        return list(await asyncio.gather(*[client.send("/v1/score", ASKED) for _ in range(12)]))

    answers = use(served, call, max_queued_requests=1)
    refused = [answer for answer in answers if answer.status_code != 200]
    assert any(answer.status_code == 200 for answer in answers)
    assert refused
    for answer in refused:
        assert_refused(answer, 429, "queue_full")
        assert int(answer.headers["retry-after"]) >= 1
