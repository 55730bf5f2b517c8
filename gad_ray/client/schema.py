"""Requests and answers of the endpoint, in the shapes that clients of vLLM, Jina, Cohere and OpenRLHF know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

TextOrTexts = str | Annotated[list[str], Field(min_length=1)]

# Codes that clients know: what is too much at once may be scored in smaller requests.
BODY_TOO_LONG = "body_too_long"
DEADLINE_EXCEEDED = "deadline_exceeded"
DEADLINE_UNREACHABLE = "deadline_unreachable"
TOO_MANY_PAIRS = "too_many_pairs"
TOO_MANY_TOKENS = "too_many_tokens"


class Schema(BaseModel):
    """Refuses unknown keys and coerces nothing."""

    model_config = ConfigDict(
        extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False, frozen=True
    )


# --- Requests


class ChatMessage(Schema):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


Conversation = Annotated[list[ChatMessage], Field(min_length=1)]


class ScoringRequest(Schema):
    """What all requests for scores have in common."""

    model: str | None = None
    """The critic, by its served name or its fingerprint; whichever is served when left out."""
    user: str | None = None
    """Taken for compatibility with OpenAI's clients; not used."""
    truncate: Literal["none", "response"] = "none"
    """What to do with a pair above the critic's limit of tokens: refuse it, or cut the end of the response."""


def _one_of(*choices: tuple[str, ...]) -> Callable[[dict[str, Any]], None]:
    """Tells in JSON Schema which fields go together: those of one choice are given, of the others none or null."""
    names = {name for choice in choices for name in choice}

    def tell(schema: dict[str, Any]) -> None:
        schema["oneOf"] = [
            {
                "required": list(choice),
                "properties": {
                    name: {"not": {"type": "null"}} if name in choice else {"type": "null"}
                    for name in sorted(names)
                },
            }
            for choice in choices
        ]

    return tell


_SIDES = (("queries", "documents"), ("queries", "items"), ("text_1", "text_2"), ("data_1", "data_2"))


class ScoreRequest(ScoringRequest):
    """Scores of documents (responses) to queries (prompts): 1×N or N×N, or to one conversation."""

    model_config = ConfigDict(
        json_schema_extra=_one_of(*_SIDES, ("messages",), ("messages", "documents")),
    )

    queries: TextOrTexts | None = None
    """A prompt, or several; each is what a user says first."""
    documents: TextOrTexts | None = None
    """The responses: as many as there are queries, or any number to a single one."""
    items: TextOrTexts | None = None
    """Another name of ``documents``."""
    text_1: TextOrTexts | None = None
    """Another name of ``queries``, together with ``text_2``."""
    text_2: TextOrTexts | None = None
    """Another name of ``documents``."""
    data_1: TextOrTexts | None = None
    """Another name of ``queries``, together with ``data_2``."""
    data_2: TextOrTexts | None = None
    """Another name of ``documents``."""
    messages: Conversation | None = None
    """A conversation in place of ``queries``. Without ``documents``, its last message is the response."""
    return_token_values: bool = False
    """Also give the critic's value of every token of the responses."""

    @property
    def sides(self) -> tuple[list[str] | None, list[str] | None]:
        """Queries and documents under whatever name they came."""
        left = next((v for n in ("queries", "text_1", "data_1") if (v := _given(self, n)) is not None), None)
        right = next(
            (v for n in ("documents", "items", "text_2", "data_2") if (v := _given(self, n)) is not None),
            None,
        )
        return left, right

    @model_validator(mode="after")
    def _check_sides(self) -> Self:
        names = {name for pair in _SIDES for name in pair}
        given = {name for name in names if getattr(self, name) is not None}
        if self.messages is not None:
            if given - {"documents"}:
                raise ValueError(
                    "messages go with documents or stand alone, without queries or their aliases"
                )
            return self
        if not any(given == set(pair) for pair in _SIDES):
            found = ", ".join(sorted(given)) or "neither"
            raise ValueError(
                "give queries with documents (or queries with items, text_1 with text_2, data_1 with data_2), "
                f"or messages; found {found}"
            )
        return self


class RerankDocument(Schema):
    """A document given as an object."""

    text: str


class RerankRequest(ScoringRequest):
    """Responses to one prompt, best first."""

    model_config = ConfigDict(json_schema_extra=_one_of(("query",), ("messages",)))

    query: str | None = None
    """The prompt."""
    messages: Conversation | None = None
    """A conversation in place of ``query``."""
    documents: Annotated[list[str | RerankDocument], Field(min_length=1)]
    """The responses."""
    top_n: Annotated[int, Field(ge=1)] | None = None
    """Give only so many; all when left out."""
    return_documents: bool = True
    """Repeat the responses' text in the answer."""

    @model_validator(mode="after")
    def _check_prompt(self) -> Self:
        _check_one_prompt(self.query, self.messages, "query")
        return self


class CompareRequest(ScoringRequest):
    """Two responses to one prompt."""

    model_config = ConfigDict(json_schema_extra=_one_of(("prompt",), ("messages",)))

    prompt: str | None = None
    """The prompt."""
    messages: Conversation | None = None
    """A conversation in place of ``prompt``."""
    responses: Annotated[list[str], Field(min_length=2, max_length=2)]
    """The two responses."""

    @model_validator(mode="after")
    def _check_prompt(self) -> Self:
        _check_one_prompt(self.prompt, self.messages, "prompt")
        return self


class RewardRequest(Schema):
    """What OpenRLHF asks a reward server: rendered prompts with their responses behind them."""

    query: Annotated[list[str], Field(min_length=1)]
    """Prompt and response of each sample as one text, with the chat template's control tokens."""
    prompts: list[str] | None = None
    """The prompts alone, as they stand at the beginning of ``query``."""
    labels: list[object] | None = None
    """Taken for compatibility; a critic does not look at the right answer."""

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if self.prompts is not None and len(self.prompts) != len(self.query):
            raise ValueError(f"prompts has {len(self.prompts)} entries, query {len(self.query)}")
        return self


def _given(request: ScoreRequest, name: str) -> list[str] | None:
    value: str | list[str] | None = getattr(request, name)
    return [value] if isinstance(value, str) else value


def _check_one_prompt(text: str | None, messages: list[ChatMessage] | None, name: str) -> None:
    if (text is None) == (messages is None):
        raise ValueError(f"give either {name} or messages")


# --- Answers


class ModelVersion(Schema):
    """Which critic gave a score."""

    fingerprint: str
    """SHA-256 over everything that a score depends on."""
    step: int
    """Optimiser steps that the critic had taken."""


class Usage(Schema):
    """Tokens in the critic's tokenizer, every pair counted with its prompt."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


class Answer(Schema):
    """What all answers with scores have in common."""

    id: str
    model: str
    model_version: ModelVersion
    truncated: bool
    """Whether a response was cut to fit the critic; see ``truncate``."""
    usage: Usage


class TokenValues(Schema):
    """The critic's value of every token of a response."""

    values: list[float]
    ends: list[int]
    """For every token, the index behind its last character in the response."""


class ScoreItem(Schema):
    """One score."""

    index: int
    object: Literal["score"] = "score"
    score: float
    """Compares only with scores under the same prompt."""
    truncated: bool
    token_values: TokenValues | None = None


class ScoreResponse(Answer):
    """Scores in the order of the documents."""

    object: Literal["list"] = "list"
    created: int
    data: list[ScoreItem]


class RerankResult(Schema):
    """One response in its place."""

    index: int
    """Its place in the request."""
    relevance_score: float
    document: RerankDocument | None = None
    truncated: bool


class RerankResponse(Answer):
    """Responses, best first; equal scores in the request's order."""

    results: list[RerankResult]


class CompareResponse(Answer):
    """Which of two responses the critic prefers."""

    object: Literal["comparison"] = "comparison"
    created: int
    probability: float
    """That the first is better: σ((s₁ − s₂)/τ)."""
    scores: Annotated[list[float], Field(min_length=2, max_length=2)]
    temperature: float
    """τ of the critic's loss when it was exported."""


class RewardResponse(Schema):
    """Rewards in the order of the queries."""

    rewards: list[float]
    scores: list[float]
    extra_logs: dict[str, list[float]]
    model_version: ModelVersion


class ModelCard(Schema):
    """A critic that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["gad-ray"] = "gad-ray"
    max_model_len: int
    """Longest prompt plus response, in tokens."""
    model_version: ModelVersion
    fingerprint_parts: dict[str, str]
    """SHA-256 of each part: weights, head, template, tokenizer, pooling, and the name of the dtype."""
    temperature: float
    dtype: str


class ModelList(Schema):
    """The critics that are served."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Status(Schema):
    """Whether the service lives, or is ready."""

    status: Literal["ok", "ready"]
    model_version: ModelVersion | None = None


class ErrorDetail(Schema):
    """What is wrong with a request."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(Schema):
    """OpenAI's error envelope."""

    error: ErrorDetail
