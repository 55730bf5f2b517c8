"""From requests to pairs of text: the shapes' rules, and the checks that ``gad-ray score`` makes as well."""

from __future__ import annotations

from collections.abc import Sequence

from gad_ray.batch import Message
from gad_ray.client.schema import (
    TOO_MANY_PAIRS,
    ChatMessage,
    CompareRequest,
    RerankDocument,
    RerankRequest,
    RewardRequest,
    ScoreRequest,
)
from gad_ray.config.endpoint import Limits
from gad_ray.data.validate import parse_prompt
from gad_ray.errors import DataError
from gad_ray.models.pairs import Pair
from gad_ray.serving.application.errors import ApiError
from gad_ray.serving.application.rendered import RenderedPrompts


class PairReader:
    """Reads the pairs of a request, within the limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def of_score(self, request: ScoreRequest) -> list[Pair]:
        """1×N or N×N queries and documents, or a conversation.

        Raises:
            ApiError: 400, if the numbers do not fit or a text cannot be a prompt.
        """
        queries, documents = request.sides
        if request.messages is not None:
            return self._of_conversation(request.messages, documents)
        assert queries is not None
        assert documents is not None
        self._check_count(max(len(queries), len(documents)), param="documents")
        if len(queries) not in (1, len(documents)):
            raise ApiError(
                f"{len(queries)} queries and {len(documents)} documents: give one query, or as many as documents",
                code="lengths_differ",
                param="queries",
            )
        many = len(queries) > 1
        prompts = [
            self._prompt(text, where=f"queries.{i}" if many else "queries") for i, text in enumerate(queries)
        ]
        self._check_texts(documents, where="documents")
        return [Pair(prompts[i if many else 0], document) for i, document in enumerate(documents)]

    def of_rerank(self, request: RerankRequest) -> list[Pair]:
        """One prompt with every document.

        Raises:
            ApiError: 400, if a text cannot be used.
        """
        texts = [d.text if isinstance(d, RerankDocument) else d for d in request.documents]
        self._check_count(len(texts), param="documents")
        self._check_texts(texts, where="documents")
        prompt = self._one_prompt(request.query, request.messages, where="query")
        return [Pair(prompt, text) for text in texts]

    def of_compare(self, request: CompareRequest) -> list[Pair]:
        """One prompt with both responses.

        Raises:
            ApiError: 400, if a text cannot be used.
        """
        self._check_texts(request.responses, where="responses")
        prompt = self._one_prompt(request.prompt, request.messages, where="prompt")
        return [Pair(prompt, text) for text in request.responses]

    def of_reward(self, request: RewardRequest, prompts: RenderedPrompts) -> list[Pair]:
        """A trainer's rendered prompts and responses.

        Raises:
            ApiError: 400, if prompt and response cannot be told apart, or cannot be used.
        """
        self._check_count(len(request.query), param="query")
        self._check_texts(request.query, where="query")
        given = request.prompts or [None] * len(request.query)
        pairs = [
            prompts.pair(query, prompt, where=f"query.{i}")
            for i, (query, prompt) in enumerate(zip(request.query, given, strict=True))
        ]
        return [
            Pair(self._usable(pair.messages, where=f"prompts.{i}"), pair.response)
            for i, pair in enumerate(pairs)
        ]

    def _of_conversation(
        self, messages: Sequence[ChatMessage], documents: Sequence[str] | None
    ) -> list[Pair]:
        if documents is not None:
            self._check_count(len(documents), param="documents")
            self._check_texts(documents, where="documents")
            prompt = self._conversation(messages, where="messages")
            return [Pair(prompt, document) for document in documents]
        if messages[-1].role != "assistant" or len(messages) == 1:
            raise ApiError(
                "without documents, the last of the messages is the response to score, from the assistant",
                code="no_response",
                param="messages",
            )
        self._check_texts([messages[-1].content], where="messages")
        return [Pair(self._conversation(messages[:-1], where="messages"), messages[-1].content)]

    def _one_prompt(
        self, text: str | None, messages: Sequence[ChatMessage] | None, *, where: str
    ) -> tuple[Message, ...]:
        if messages is not None:
            return self._conversation(messages, where="messages")
        assert text is not None
        return self._prompt(text, where=where)

    def _prompt(self, text: str, *, where: str) -> tuple[Message, ...]:
        self._check_texts([text], where=where)
        return self._usable((Message(role="user", content=text),), where=where)

    def _conversation(self, messages: Sequence[ChatMessage], *, where: str) -> tuple[Message, ...]:
        if len(messages) > self._limits.max_messages:
            raise ApiError(
                f"{len(messages)} messages; at most {self._limits.max_messages} are taken",
                code="too_many_messages",
                param=where,
            )
        self._check_texts([message.content for message in messages], where=where)
        return self._usable(tuple(Message(role=m.role, content=m.content) for m in messages), where=where)

    def _usable(self, messages: tuple[Message, ...], *, where: str) -> tuple[Message, ...]:
        """The prompt by the rules of training data: a prompt that training refuses gets no score here either."""
        turns = [{"role": m.role, "content": m.content} for m in messages]
        try:
            return parse_prompt({"messages": turns}, where=where)
        except DataError as error:
            raise ApiError(error.message, code="unusable_prompt", param=where) from None

    def _check_count(self, count: int, *, param: str) -> None:
        if count > self._limits.max_pairs:
            raise ApiError(
                f"{count} pairs; one request takes at most {self._limits.max_pairs}",
                code=TOO_MANY_PAIRS,
                param=param,
            )

    def _check_texts(self, texts: Sequence[str], *, where: str) -> None:
        limit = self._limits.max_text_characters
        for i, text in enumerate(texts):
            if len(text) > limit:
                raise ApiError(
                    f"a text of {len(text)} characters; at most {limit} are taken",
                    code="text_too_long",
                    param=f"{where}.{i}",
                )
