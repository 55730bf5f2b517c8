import asyncio
import json
import pickle
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gad_ray.batch import Message
from gad_ray.client.retry import ClientSettings, EndpointError
from gad_ray.client.score_client import ScoreClient
from gad_ray.models.pairs import Pair
from tests.unit.builders import pair

TALK = (Message(role="system", content="Be short."), Message(role="user", content="Hi"))
Reply = httpx.Response | Exception


def answer(body: dict[str, Any], fingerprint: str = "f" * 64) -> httpx.Response:
    """Scores: the length of each document."""
    documents = body["documents"]
    data = [
        {"index": i, "object": "score", "score": float(len(text)), "truncated": False}
        for i, text in enumerate(documents)
    ]
    version = {"fingerprint": fingerprint, "step": 3}
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return httpx.Response(
        200,
        json={"id": "x", "model": "critic", "model_version": version, "truncated": False, "usage": usage, "created": 1, "data": data},
    )  # fmt: skip


def envelope(status: int, code: str = "some_code", **headers: str) -> httpx.Response:
    error = {"message": "not so", "type": "t", "param": None, "code": code}
    return httpx.Response(
        status, json={"error": error}, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


class Endpoint:
    """Answers as a script tells; remembers what it was asked."""

    def __init__(self, *script: Callable[[dict[str, Any]], Reply] | Reply) -> None:
        self.script = list(script)
        self.requests: list[httpx.Request] = []
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else {}
        self.requests.append(request)
        self.bodies.append(body)
        step = self.script.pop(0) if self.script else answer
        reply = step if isinstance(step, httpx.Response | Exception) else step(body)
        if isinstance(reply, Exception):
            raise reply
        # A fresh one: a response can be given once.
        return httpx.Response(reply.status_code, headers=reply.headers, content=reply.content)

    def client(self, *, key: str | None = None, **settings: Any) -> ScoreClient:
        transport = httpx.MockTransport(self)
        return ScoreClient(
            "http://critic:1/", key=key, settings=ClientSettings(**settings), transport=transport, async_transport=transport, jitter=lambda: 0.0
        )  # fmt: skip


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No pause is made; each is noted."""
    made: list[float] = []

    async def pause(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr("gad_ray.client.score_client.time.sleep", made.append)
    monkeypatch.setattr("gad_ray.client.score_client.asyncio.sleep", pause)
    return made


@pytest.fixture(params=["waiting", "asynchronous"])
def score_pairs(request: pytest.FixtureRequest) -> Callable[..., list[float]]:
    def call(client: ScoreClient, pairs: list[Pair], **options: Any) -> list[float]:
        if request.param == "waiting":
            with client:
                return [score.value for score in client.score_pairs(pairs, **options)]

        async def run() -> list[float]:
            async with client:
                return [score.value for score in await client.score_pairs_async(pairs, **options)]

        return asyncio.run(run())

    return call


def test_pairs_of_all_kinds_come_back_in_their_order(score_pairs: Callable[..., list[float]]):
    endpoint = Endpoint()
    pairs = [pair("a", "1"), Pair(TALK, "22"), pair("b", "333"), Pair(TALK, "4444"), pair("a", "")]
    assert score_pairs(endpoint.client(), pairs) == [1.0, 2.0, 3.0, 4.0, 0.0]
    talk = [{"role": m.role, "content": m.content} for m in TALK]
    assert sorted(endpoint.bodies, key=lambda body: "messages" in body) == [
        {"queries": ["a", "b", "a"], "documents": ["1", "333", ""]},
        {"messages": talk, "documents": ["22", "4444"]},
    ]


def test_a_large_input_goes_in_parts_of_pairs_and_characters(score_pairs: Callable[..., list[float]]):
    endpoint = Endpoint()
    pairs = [pair("q", "x" * i) for i in range(25)]
    found = score_pairs(endpoint.client(part_pairs=10), pairs)
    assert found == [float(i) for i in range(25)]
    assert sorted(len(body["documents"]) for body in endpoint.bodies) == [5, 10, 10]
    assert all(body["queries"] == ["q"] for body in endpoint.bodies), "one query with its documents"

    endpoint = Endpoint()
    score_pairs(
        endpoint.client(part_characters=20), [pair("q", "x" * 9), pair("q", "y" * 9), pair("q", "z" * 50)]
    )
    assert sorted(len(body["documents"]) for body in endpoint.bodies) == [1, 2]


def test_equal_pairs_are_asked_for_once_however_many_parts_a_call_has(
    score_pairs: Callable[..., list[float]],
):
    endpoint = Endpoint()
    pairs = [pair("q", "x" * (i % 3)) for i in range(10)] + [Pair(TALK, "xx")] * 2
    assert score_pairs(endpoint.client(part_pairs=2), pairs) == [*[0.0, 1.0, 2.0] * 3, 0.0, 2.0, 2.0]
    assert sorted(document for body in endpoint.bodies for document in body["documents"]) == [
        "",
        "x",
        "xx",
        "xx",
    ]


def test_no_pairs_are_no_request(score_pairs: Callable[..., list[float]]):
    endpoint = Endpoint()
    assert score_pairs(endpoint.client(), []) == []
    assert endpoint.requests == []


def test_options_and_key_are_sent(score_pairs: Callable[..., list[float]]):
    endpoint = Endpoint()
    score_pairs(endpoint.client(key="secret"), [pair("q", "a")], truncate=True, token_values=True)
    assert endpoint.bodies[0]["truncate"] == "response"
    assert endpoint.bodies[0]["return_token_values"] is True
    assert endpoint.requests[0].headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    "trouble",
    [envelope(429), envelope(503), envelope(500), envelope(408), httpx.ConnectError("refused"), httpx.ReadError("cut"), httpx.ReadTimeout("slow"), httpx.DecodingError("no gzip")],
)  # fmt: skip
def test_what_may_pass_is_tried_again_under_the_same_id(
    score_pairs: Callable[..., list[float]], trouble: Reply, pauses: list[float]
):
    endpoint = Endpoint(trouble, trouble)
    assert score_pairs(endpoint.client(), [pair("q", "four")]) == [4.0]
    assert len(endpoint.requests) == 3
    assert len({request.headers["x-request-id"] for request in endpoint.requests}) == 1
    assert len({request.content for request in endpoint.requests}) == 1
    assert [pause for pause in pauses if pause] == [0.25, 0.5]


def test_a_pause_is_as_long_as_the_service_asks(score_pairs: Callable[..., list[float]], pauses: list[float]):
    endpoint = Endpoint(envelope(429, retry_after="7"))
    score_pairs(endpoint.client(), [pair("q", "a")])
    assert [pause for pause in pauses if pause] == [7.0]


def test_a_refusal_is_told_at_once(score_pairs: Callable[..., list[float]]):
    endpoint = Endpoint(envelope(400))
    with pytest.raises(EndpointError, match="refused with 400: not so") as caught:
        score_pairs(endpoint.client(), [pair("q", "a")])
    assert (caught.value.status, caught.value.code, len(endpoint.requests)) == (400, "some_code", 1)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.status, again.code) == (str(caught.value), 400, "some_code")


def test_the_last_failure_is_told_with_the_number_of_attempts(score_pairs: Callable[..., list[float]]):
    endpoint = Endpoint(*[envelope(503)] * 9)
    with pytest.raises(EndpointError, match="no answer after 3 attempts; the last: 503"):
        score_pairs(endpoint.client(max_attempts=3), [pair("q", "a")])
    endpoint = Endpoint(*[httpx.ConnectError("refused")] * 9)
    with pytest.raises(EndpointError, match="ConnectError: refused"):
        score_pairs(endpoint.client(max_attempts=2), [pair("q", "a")])
    assert len(endpoint.requests) == 2


class SlowEndpoint(Endpoint):
    """Scores so many characters in the time that a request has, and refuses or gives up what has more."""

    def __init__(self, characters: int, status: int, code: str) -> None:
        super().__init__()
        self.refused: list[tuple[str, ...]] = []

        def step(body: dict[str, Any]) -> httpx.Response:
            if sum(map(len, body["documents"])) <= characters:
                return answer(body)
            self.refused.append(tuple(body["documents"]))
            return envelope(status, code)

        self.step = step

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.script = [self.step]
        return super().__call__(request)


TOO_MUCH = [
    (408, "deadline_exceeded"),
    (413, "deadline_unreachable"),
    (413, "too_many_tokens"),
    (413, "body_too_long"),
    (400, "too_many_pairs"),
]


@pytest.mark.parametrize(("status", "code"), TOO_MUCH)
def test_what_is_too_much_at_once_is_asked_for_in_halves_and_never_twice(
    score_pairs: Callable[..., list[float]], status: int, code: str, pauses: list[float]
):
    endpoint = SlowEndpoint(20, status, code)
    pairs = [pair(f"q{i % 9}", chr(97 + i // 9) * (1 + i % 9)) for i in range(60)]
    pairs += [Pair(TALK, chr(97 + i // 6) * (1 + i % 6)) for i in range(30)]
    assert score_pairs(endpoint.client(), pairs, truncate=True) == [float(len(p.response)) for p in pairs]
    assert len(endpoint.refused) > 3
    assert len(set(endpoint.refused)) == len(endpoint.refused), "what was too much is not sent again"
    assert not any(pauses)
    for body in endpoint.bodies:
        assert body["truncate"] == "response"
        assert "messages" in body or len(body["queries"]) in (1, len(body["documents"]))
    plain = [zip(body["queries"], body["documents"], strict=True) for body in endpoint.bodies if len(body.get("queries", [])) > 1]  # fmt: skip
    assert all(len(document) == int(query[1:]) + 1 for both in plain for query, document in both)


def test_a_size_that_was_too_much_is_not_tried_by_the_parts_that_follow():
    endpoint = SlowEndpoint(40, 408, "deadline_exceeded")
    with endpoint.client(part_pairs=16) as client:
        client.score_pairs([pair("q", f"{i:09d}") for i in range(64)])
    assert [len(body["documents"]) for body in endpoint.bodies] == [16, 8, *[4] * 16]


def test_a_single_pair_that_was_not_scored_in_time_is_tried_again_and_given_up_in_the_end(
    score_pairs: Callable[..., list[float]],
):
    late = envelope(408, "deadline_exceeded")
    endpoint = Endpoint(late, late)
    assert score_pairs(endpoint.client(), [pair("q", "four")]) == [4.0]
    assert len(endpoint.requests) == 3
    with pytest.raises(EndpointError, match="no answer after 6 attempts; the last: 408"):
        score_pairs(SlowEndpoint(3, 408, "deadline_exceeded").client(), [pair("q", "a"), pair("q", "four")])


def test_who_is_told_to_come_later_comes_as_often_as_it_takes(score_pairs: Callable[..., list[float]]):
    endpoint = Endpoint(*[envelope(429, "queue_full", retry_after="1")] * 20)
    assert score_pairs(endpoint.client(max_attempts=2), [pair("q", "four")]) == [4.0]
    assert len(endpoint.requests) == 21


def test_no_attempt_is_begun_beyond_the_deadline(score_pairs: Callable[..., list[float]]):
    endpoint = Endpoint(envelope(429, retry_after="100"))
    with pytest.raises(EndpointError, match="after 1 attempts"):
        score_pairs(endpoint.client(deadline_s=50.0), [pair("q", "a")])


def test_parts_that_two_critics_have_answered_are_asked_again_until_one_has_answered_all(
    score_pairs: Callable[..., list[float]],
):
    endpoint = Endpoint(lambda body: answer(body, "a" * 64), lambda body: answer(body, "b" * 64))
    assert score_pairs(endpoint.client(part_pairs=1), [pair("q", "a"), pair("q", "bb")]) == [1.0, 2.0]
    assert len(endpoint.requests) == 4

    changing = Endpoint(*[lambda body, i=i: answer(body, f"{i:064x}") for i in range(20)])
    with pytest.raises(EndpointError, match="another one in the middle of a call, 2 times"):
        score_pairs(changing.client(part_pairs=1, max_attempts=2), [pair("q", "a"), pair("q", "bb")])


@pytest.mark.parametrize(
    "reply", [httpx.Response(200, text="<html>"), httpx.Response(200, json={"data": []})]
)
def test_an_answer_of_something_else_is_refused(
    score_pairs: Callable[..., list[float]], reply: httpx.Response
):
    with pytest.raises(EndpointError, match="cannot be used"):
        score_pairs(Endpoint(reply).client(), [pair("q", "a")])


def test_an_answer_with_too_few_scores_is_refused(score_pairs: Callable[..., list[float]]):
    endpoint = Endpoint(lambda body: answer({"documents": body["documents"][:1]}))
    with pytest.raises(EndpointError, match="not one score for every pair"):
        score_pairs(endpoint.client(), [pair("q", "a"), pair("q", "b")])


def test_a_score_says_which_critic_gave_it():
    [score] = Endpoint().client().score("q", ["four"])
    assert (score.value, score.fingerprint, score.step, score.truncated, score.tokens) == (
        4.0,
        "f" * 64,
        3,
        False,
        None,
    )


def test_text_that_is_no_unicode_is_left_to_the_service_to_refuse():
    endpoint = Endpoint(envelope(400))
    with pytest.raises(EndpointError, match="refused with 400"):
        endpoint.client().score("q", ["\ud800"])
