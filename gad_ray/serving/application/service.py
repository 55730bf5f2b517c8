"""The endpoint without HTTP: typed requests in, typed answers out, one served critic at a time."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from gad_ray.client.schema import (
    TOO_MANY_TOKENS,
    CompareRequest,
    CompareResponse,
    ModelCard,
    ModelList,
    ModelVersion,
    RerankDocument,
    RerankRequest,
    RerankResponse,
    RerankResult,
    RewardRequest,
    RewardResponse,
    ScoreItem,
    ScoreRequest,
    ScoreResponse,
    ScoringRequest,
    TokenValues,
    Usage,
)
from gad_ray.config.endpoint import Limits
from gad_ray.core.preference import preferred_probability
from gad_ray.models.pairs import Pair
from gad_ray.serving.application.adapters import AdapterPool, names_of
from gad_ray.serving.application.batcher import Batcher
from gad_ray.serving.application.errors import ApiError, unavailable
from gad_ray.serving.application.inputs import PairReader
from gad_ray.serving.application.loaded_critic import PreparedPair, RowScore, ServedCritic
from gad_ray.serving.application.rendered import RenderedPrompts


@dataclass(frozen=True, slots=True)
class _Scored:
    model: str
    critic: ServedCritic
    texts: Sequence[Pair]
    pairs: Sequence[PreparedPair]
    scores: Sequence[RowScore]

    @property
    def truncated(self) -> bool:
        return any(pair.truncated for pair in self.pairs)

    @property
    def version(self) -> ModelVersion:
        return version_of(self.critic)

    @property
    def usage(self) -> Usage:
        tokens = sum(len(pair) for pair in self.pairs)
        return Usage(prompt_tokens=tokens, total_tokens=tokens)


class ScoringService:
    """Answers requests with the critic that is served when they come.

    Args:
        critic: The critic to serve; None until :meth:`swap` brings one, and requests are told to come again.
        name: What clients call it.
        limits: Bounds of requests.
        batcher: Scores the rows.
        adapters: Further models that requests may name.
    """

    def __init__(
        self,
        critic: ServedCritic | None,
        *,
        name: str,
        limits: Limits,
        batcher: Batcher,
        adapters: AdapterPool | None = None,
    ) -> None:
        self._served: ServedCritic | None = None
        self._rendered: tuple[ServedCritic, RenderedPrompts] | None = None
        if critic is not None:
            self.swap(critic)
        self._name = name
        self._limits = limits
        self._reader = PairReader(limits)
        self._batcher = batcher
        self._adapters = adapters
        self._num_read = 0
        # Tokenising takes its time with long texts: it must not hold up the event loop, nor the critic.
        self._tokenizing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenize")

    @property
    def present(self) -> ServedCritic | None:
        """The critic that answers requests which come now, if there is one."""
        return self._served

    @property
    def critic(self) -> ServedCritic:
        """The same.

        Raises:
            ApiError: 503, if there is none yet.
        """
        if self._served is None:
            raise unavailable("no critic is loaded yet", "not_ready")
        return self._served

    @property
    def version(self) -> ModelVersion:
        """Its version.

        Raises:
            ApiError: 503, if there is no critic yet.
        """
        return version_of(self.critic)

    def _prompts_of(self, critic: ServedCritic) -> RenderedPrompts:
        """What rendered prompts are read with; made once for each critic that is asked for it."""
        if self._rendered is None or self._rendered[0] is not critic:
            self._rendered = (critic, RenderedPrompts(critic.chat))
        return self._rendered[1]

    async def score(self, request: ScoreRequest) -> ScoreResponse:
        """Answer ``/v1/score``.

        Raises:
            ApiError: If the request cannot be answered.
        """
        done = await self._run(request, lambda: self._reader.of_score(request))
        return ScoreResponse(
            id=_new_id("score"),
            created=int(time.time()),
            model=done.model,
            model_version=done.version,
            truncated=done.truncated,
            usage=done.usage,
            data=[
                ScoreItem(
                    index=i,
                    score=score.score,
                    truncated=pair.truncated,
                    token_values=_token_values(done.critic, text, score)
                    if request.return_token_values
                    else None,
                )
                for i, (text, pair, score) in enumerate(zip(done.texts, done.pairs, done.scores, strict=True))
            ],
        )

    async def rerank(self, request: RerankRequest) -> RerankResponse:
        """Answer ``/v1/rerank``.

        Raises:
            ApiError: If the request cannot be answered.
        """
        done = await self._run(request, lambda: self._reader.of_rerank(request))
        order = sorted(range(len(done.scores)), key=lambda i: -done.scores[i].score)
        return RerankResponse(
            id=_new_id("rerank"),
            model=done.model,
            model_version=done.version,
            truncated=done.truncated,
            usage=done.usage,
            results=[
                RerankResult(
                    index=i,
                    relevance_score=done.scores[i].score,
                    document=RerankDocument(text=done.texts[i].response)
                    if request.return_documents
                    else None,
                    truncated=done.pairs[i].truncated,
                )
                for i in order[: request.top_n]
            ],
        )

    async def compare(self, request: CompareRequest) -> CompareResponse:
        """Answer ``/v1/compare``.

        Raises:
            ApiError: If the request cannot be answered.
        """
        done = await self._run(request, lambda: self._reader.of_compare(request))
        first, second = (score.score for score in done.scores)
        return CompareResponse(
            id=_new_id("compare"),
            created=int(time.time()),
            model=done.model,
            model_version=done.version,
            truncated=done.truncated,
            usage=done.usage,
            probability=preferred_probability(first - second, temperature=done.critic.temperature),
            scores=[first, second],
            temperature=done.critic.temperature,
        )

    async def reward(self, request: RewardRequest) -> RewardResponse:
        """Answer ``/get_reward``.

        Raises:
            ApiError: If the request cannot be answered.
        """
        critic = self.critic
        prompts = self._prompts_of(critic)
        done = await self._run(
            ScoringRequest(), lambda: self._reader.of_reward(request, prompts), critic=critic
        )
        rewards = [score.score for score in done.scores]
        return RewardResponse(rewards=rewards, scores=rewards, extra_logs={}, model_version=done.version)

    def models(self) -> ModelList:
        """Answer ``/v1/models``."""
        critic = self.critic
        card = ModelCard(
            id=self._name,
            created=critic.loaded_at,
            max_model_len=critic.max_tokens,
            model_version=self.version,
            fingerprint_parts=asdict(critic.parts),
            temperature=critic.temperature,
            dtype=critic.dtype,
        )
        return ModelList(data=[card, *([] if self._adapters is None else self._adapters.cards())])

    def swap(self, critic: ServedCritic) -> None:
        """Answer with another critic from the next request on.

        Requests that have come before are answered by the critic that they came to, which lives as long as one of
        them does.
        """
        self._served = critic

    def check_ready(self) -> None:
        """Whether requests are taken; a critic that is served has been loaded and has scored a first text.

        Raises:
            ApiError: 503 after :meth:`close`.
        """
        self._batcher.check_open()

    async def close(self) -> None:
        """Answer what is under way and end."""
        await self._batcher.close()
        self._tokenizing.shutdown(wait=False)

    async def _run(
        self,
        request: ScoringRequest,
        read: Callable[[], list[Pair]],
        *,
        critic: ServedCritic | None = None,
    ) -> _Scored:
        """Read, tokenise and score; everything with one critic, by default the one that is served at this moment."""
        started = time.monotonic()
        present = critic or self.critic
        name = self._name_of(request.model, present)
        # Before any work is put into it: a full queue answers at once.
        self._batcher.check_room(others=self._num_read, timeout_s=self._limits.request_timeout_s)
        self._num_read += 1
        try:
            critic = (
                present if self._adapters is None or name == self._name else await self._adapters.get(name)
            )
            texts, pairs = await asyncio.get_running_loop().run_in_executor(
                self._tokenizing, self._prepare, critic, read, request.truncate == "response"
            )
        finally:
            self._num_read -= 1
        left_s = self._limits.request_timeout_s - (time.monotonic() - started)
        scores = await self._batcher.submit(critic, pairs, timeout_s=max(left_s, 0.0))
        return _Scored(name, critic, texts, pairs, scores)

    def _prepare(
        self, critic: ServedCritic, read: Callable[[], list[Pair]], truncate: bool
    ) -> tuple[list[Pair], list[PreparedPair]]:
        texts = read()
        limit = self._limits.max_request_tokens
        pairs: list[PreparedPair] = []
        tokens = 0
        for i, text in enumerate(texts):
            pairs.append(critic.prepare(text, truncate=truncate, where=f"pair {i}"))
            tokens += len(pairs[-1])
            if tokens > limit:
                raise ApiError(
                    f"the first {i + 1} of {len(texts)} pairs have {tokens} tokens; one request takes at most {limit}",
                    status=413,
                    code=TOO_MANY_TOKENS,
                )
        return texts, pairs

    def _name_of(self, wanted: str | None, critic: ServedCritic) -> str:
        """The model that a request names."""
        if wanted is None or wanted in (self._name, *names_of(version_of(critic))):
            return self._name
        found = None if self._adapters is None else self._adapters.name_of(wanted)
        if found is None:
            raise ApiError(
                f"this service has the model {self._name!r} with the fingerprint {critic.fingerprint}"
                + ("" if self._adapters is None else ", and those that /v1/models lists"),
                status=404,
                code="model_not_found",
                param="model",
            )
        return found


def version_of(critic: ServedCritic) -> ModelVersion:
    """What answers say of a critic."""
    return ModelVersion(fingerprint=critic.fingerprint, step=critic.step)


def _token_values(critic: ServedCritic, text: Pair, score: RowScore) -> TokenValues:
    ends = critic.chat.response_ends(text.response)
    # An empty response is scored on the prompt's last token: none of its own has a value. A cut one has fewer.
    count = min(len(ends), len(score.values))
    return TokenValues(values=[float(v) for v in score.values[:count]], ends=ends[:count])


def _new_id(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(12)}"
