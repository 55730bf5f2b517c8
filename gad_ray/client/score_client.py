"""A client of the endpoint: typed scores, large inputs in parts, and retries that wait as they are told.

    client = ScoreClient("http://127.0.0.1:8000")
    scores = client.score("Why is the sky blue?", ["Because air scatters blue light.", "It is painted."])
    scores = await client.score_async("Why is the sky blue?", [...])

Scoring changes nothing on the server: a request that got lost is sent again without harm, under its own id.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError
from tenacity import AsyncRetrying, Retrying

from gad_ray.addresses import warn_of_plain_key
from gad_ray.batch import Message
from gad_ray.client.request_split import Bound, Part, as_json, parts_of
from gad_ray.client.retry import (
    ClientSettings,
    EndpointError,
    Reply,
    Request,
    TooMuchError,
    retrying,
)
from gad_ray.client.schema import (
    CompareResponse,
    ModelCard,
    ModelList,
    ModelVersion,
    RerankResponse,
    ScoreItem,
    ScoreResponse,
    TokenValues,
)
from gad_ray.models.pairs import Pair, deduplicate

Prompt = str | Sequence[Message]
"""What a user asks, or a conversation."""

R = TypeVar("R", bound=BaseModel)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The critic's score of one response.

    Attributes:
        value: Compares only with scores under the same prompt.
        fingerprint: Of the critic that gave it.
        step: Optimiser steps that it had taken.
        truncated: Whether the response was cut.
        tokens: Values of its tokens, where they were asked for.
    """

    value: float
    fingerprint: str
    step: int
    truncated: bool
    tokens: TokenValues | None = None


_Answered = tuple[Part, httpx.Response]


class ScoreClient:
    """Asks an endpoint for scores. May be used by several threads; close it, or use it in a ``with``.

    Args:
        url: Where the service listens, e.g. ``http://127.0.0.1:8000``.
        key: A bearer key, where the service wants one.
        settings: How it behaves.
        transport: In place of the network.
        async_transport: The same for the asynchronous methods.
        jitter: Gives the share of a pause that is made, 0 to 1.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        settings: ClientSettings | None = None,
        transport: httpx.BaseTransport | None = None,
        async_transport: httpx.AsyncBaseTransport | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        warn_of_plain_key(url, key)
        self._url = url.rstrip("/")
        self._settings = settings or ClientSettings()
        self._jitter = jitter
        shared: dict[str, Any] = {
            "base_url": self._url,
            "timeout": self._settings.timeout_s,
            "headers": {} if key is None else {"authorization": f"Bearer {key}"},
        }
        self._sync = httpx.Client(transport=transport, **shared)
        self._async = httpx.AsyncClient(transport=async_transport, **shared)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close_async()

    def close(self) -> None:
        """Close the connections of the synchronous methods."""
        self._sync.close()

    async def close_async(self) -> None:
        """Close all connections."""
        self._sync.close()
        await self._async.aclose()

    # --- Scores

    def score(
        self, prompt: Prompt, responses: Sequence[str], *, truncate: bool = False, token_values: bool = False
    ) -> list[Score]:
        """Score responses to one prompt.

        Args:
            prompt: What a user asks, or a conversation.
            responses: The responses, any number.
            truncate: Cut a response that is too long, in place of refusing it.
            token_values: Also give the values of single tokens.

        Raises:
            EndpointError: If the service refuses, or cannot be reached.
        """
        messages = _messages(prompt)
        return self.score_pairs(
            [Pair(messages, text) for text in responses], truncate=truncate, token_values=token_values
        )

    async def score_async(
        self, prompt: Prompt, responses: Sequence[str], *, truncate: bool = False, token_values: bool = False
    ) -> list[Score]:
        """As :meth:`score`, several parts at once."""
        messages = _messages(prompt)
        return await self.score_pairs_async(
            [Pair(messages, text) for text in responses], truncate=truncate, token_values=token_values
        )

    def score_pairs(
        self, pairs: Sequence[Pair], *, truncate: bool = False, token_values: bool = False
    ) -> list[Score]:
        """Score pairs, in their order, all by one critic. Equal pairs are asked for once and get the same score.

        Args:
            pairs: Prompts with a response each.
            truncate: Cut a response that is too long, in place of refusing it.
            token_values: Also give the values of single tokens.

        Raises:
            EndpointError: If the service refuses, cannot be reached, or changes its critic again and again. What it
                cannot score at once in its time is asked for in halves, down to single pairs.
        """
        # Two requests, in which a pair has other company each, may differ in a score's last digits.
        distinct, index = deduplicate(pairs)
        parts = self._parts(distinct, truncate=truncate, token_values=token_values)
        bound = Bound()
        for _ in range(self._settings.max_attempts):
            answers = [one for part in parts for one in self._answered(part, bound)]
            scores = self._collect(answers)
            if scores is not None:
                return [scores[int(i)] for i in index]
        raise self._restless()

    async def score_pairs_async(
        self, pairs: Sequence[Pair], *, truncate: bool = False, token_values: bool = False
    ) -> list[Score]:
        """As :meth:`score_pairs`, several parts at once."""
        distinct, index = deduplicate(pairs)
        parts = self._parts(distinct, truncate=truncate, token_values=token_values)
        bound, gate = Bound(), asyncio.Semaphore(self._settings.concurrency)
        for _ in range(self._settings.max_attempts):
            answers = _flat(await _all_of([self._answered_async(part, bound, gate) for part in parts]))
            scores = self._collect(answers)
            if scores is not None:
                return [scores[int(i)] for i in index]
        raise self._restless()

    async def send_async(self, part: Part) -> ScoreResponse:
        """The answer to one request for scores as it stands, repeated only as any request is.

        Raises:
            EndpointError: If the service refuses, or cannot be reached.
            TooMuchError: If it is too much for the time that it has; its halves may not be.
        """
        return self._typed(await self._send_async(_score(part)), ScoreResponse)

    # --- The other routes

    def rerank(self, prompt: Prompt, responses: Sequence[str], *, top_n: int | None = None) -> RerankResponse:
        """Put responses to one prompt in order, best first; all in one request.

        Raises:
            EndpointError: If the service refuses, or cannot be reached.
        """
        return self._typed(self._send(_rerank(prompt, responses, top_n)), RerankResponse)

    async def rerank_async(
        self, prompt: Prompt, responses: Sequence[str], *, top_n: int | None = None
    ) -> RerankResponse:
        """As :meth:`rerank`."""
        request = _rerank(prompt, responses, top_n)
        return self._typed(await self._send_async(request), RerankResponse)

    def compare(self, prompt: Prompt, first: str, second: str) -> CompareResponse:
        """Which of two responses the critic prefers.

        Raises:
            EndpointError: If the service refuses, or cannot be reached.
        """
        return self._typed(self._send(_compare(prompt, first, second)), CompareResponse)

    async def compare_async(self, prompt: Prompt, first: str, second: str) -> CompareResponse:
        """As :meth:`compare`."""
        request = _compare(prompt, first, second)
        return self._typed(await self._send_async(request), CompareResponse)

    def model(self) -> ModelCard:
        """The critic that is served now.

        Raises:
            EndpointError: If the service refuses, or cannot be reached.
        """
        return self._typed(self._send(Request("GET", "/v1/models")), ModelList).data[0]

    async def model_async(self) -> ModelCard:
        """As :meth:`model`."""
        answer = await self._send_async(Request("GET", "/v1/models"))
        return self._typed(answer, ModelList).data[0]

    # --- Requests

    def _parts(self, pairs: Sequence[Pair], *, truncate: bool, token_values: bool) -> list[Part]:
        options: dict[str, object] = {}
        if truncate:
            options["truncate"] = "response"
        if token_values:
            options["return_token_values"] = True
        settings = self._settings
        return parts_of(
            pairs, options, max_pairs=settings.part_pairs, max_characters=settings.part_characters
        )

    def _answered(self, part: Part, bound: Bound) -> list[_Answered]:
        """A part with its answer; in smaller ones, as small as it takes, where it is too much at once."""
        if bound.allows(part):
            try:
                return [(part, self._send(_score(part)))]
            except TooMuchError:
                bound.too_much(part)
        return [one for half in part.halves() for one in self._answered(half, bound)]

    async def _answered_async(self, part: Part, bound: Bound, gate: asyncio.Semaphore) -> list[_Answered]:
        async with gate:
            if bound.allows(part):
                try:
                    return [(part, await self._send_async(_score(part)))]
                except TooMuchError:
                    bound.too_much(part)
        return _flat(await _all_of([self._answered_async(half, bound, gate) for half in part.halves()]))

    def _send(self, request: Request) -> httpx.Response:
        def attempt() -> httpx.Response:
            try:
                reply: Reply = self._sync.request(**request.sent)
            except httpx.RequestError as error:
                reply = error
            return request.accepted(reply, self._url)

        policy = retrying(self._settings, url=self._url, jitter=self._jitter)
        return Retrying(sleep=time.sleep, **policy)(attempt)

    async def _send_async(self, request: Request) -> httpx.Response:
        async def attempt() -> httpx.Response:
            try:
                reply: Reply = await self._async.request(**request.sent)
            except httpx.RequestError as error:
                reply = error
            return request.accepted(reply, self._url)

        policy = retrying(self._settings, url=self._url, jitter=self._jitter)
        return await AsyncRetrying(sleep=asyncio.sleep, **policy)(attempt)

    # --- Answers

    def _collect(self, answers: Sequence[_Answered]) -> list[Score] | None:
        """The scores in the order of the pairs; None if two parts were answered by two critics."""
        typed = [(part, self._typed(answer, ScoreResponse)) for part, answer in answers]
        if len({answer.model_version.fingerprint for _, answer in typed}) > 1:
            return None
        found: dict[int, Score] = {}
        for part, answer in typed:
            if [item.index for item in answer.data] != list(range(len(part.places))):
                raise self._unusable("it has not one score for every pair")
            for place, item in zip(part.places, answer.data, strict=True):
                found[place] = _typed_score(item, answer.model_version)
        return [found[place] for place in range(len(found))]

    def _typed(self, answer: httpx.Response, kind: type[R]) -> R:
        try:
            return kind.model_validate_json(answer.content, strict=False)
        except ValidationError as error:
            raise self._unusable(f"{error.error_count()} of its fields are not as agreed") from None

    def _unusable(self, what: str) -> EndpointError:
        return EndpointError(
            f"the answer cannot be used: {what}", where=self._url, hint="check that it is a GAD-Ray endpoint"
        )

    def _restless(self) -> EndpointError:
        return EndpointError(
            f"the critic was another one in the middle of a call, {self._settings.max_attempts} times",
            where=self._url,
            hint="ask for fewer pairs at once, or for a named version while it is kept",
        )


def _messages(prompt: Prompt) -> tuple[Message, ...]:
    return (Message(role="user", content=prompt),) if isinstance(prompt, str) else tuple(prompt)


def _score(part: Part) -> Request:
    return Request("POST", "/v1/score", part.body, divisible=len(part.places) > 1)


def _rerank(prompt: Prompt, responses: Sequence[str], top_n: int | None) -> Request:
    body: dict[str, object] = {"messages": as_json(_messages(prompt)), "documents": list(responses)}
    return Request("POST", "/v1/rerank", body if top_n is None else {**body, "top_n": top_n})


def _compare(prompt: Prompt, first: str, second: str) -> Request:
    body: dict[str, object] = {"messages": as_json(_messages(prompt)), "responses": [first, second]}
    return Request("POST", "/v1/compare", body)


def _typed_score(item: ScoreItem, version: ModelVersion) -> Score:
    return Score(
        value=item.score,
        fingerprint=version.fingerprint,
        step=version.step,
        truncated=item.truncated,
        tokens=item.token_values,
    )


async def _all_of(calls: Sequence[Awaitable[T]]) -> list[T]:
    """All results; the first failure ends the others."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def _flat(lists: Sequence[list[T]]) -> list[T]:
    return [one for found in lists for one in found]
