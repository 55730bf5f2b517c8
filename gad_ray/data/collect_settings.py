"""What a collection of teacher answers is told, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gad_ray.errors import ConfigError

_CHAT_PATH = "/chat/completions"


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectSettings:
    """What to ask whom, and how patiently.

    Attributes:
        endpoint: Base URL, with or without ``/chat/completions``. One without any path gets ``/v1`` first.
        exact_url: The URL of the chat completions, used as it is given, in place of ``endpoint``.
        model: Model name as the endpoint knows it.
        input: JSONL prompts.
        output: Parquet file to write; journal and rejects lie beside it.
        teacher: Name recorded as the teacher; the model's name where empty.
        api_key_env: Environment variable that holds the key. Unset means: no key is sent.
        system_prompt: Put before every prompt; refused for prompts that bring a system message.
        temperature: Sampling temperature, 0 is greedy. As all sampling settings, it is sent only if it is set.
        top_p: Nucleus mass in (0, 1].
        max_tokens: Longest answer; one that reaches it is rejected as cut.
        max_tokens_field: What the endpoint calls ``max_tokens``; ``auto`` sends ``max_tokens`` and goes over to
            ``max_completion_tokens`` where the endpoint asks for that.
        seed: Sampling seed.
        retry_rejected: Ask again for answers that an earlier call has rejected, not only for those that failed.
        concurrency: Requests under way at once.
        timeout_s: Time limit of one request, from sending to the last byte.
        max_attempts: Attempts for one prompt before it counts as failed.
        backoff_s: First wait between attempts; doubled each time, with jitter.
        max_backoff_s: Longest wait, unless the endpoint itself asks for longer by Retry-After.
        max_failures_in_a_row: Failed prompts without one success between them that end the collection.
    """

    model: str
    input: Path
    output: Path
    endpoint: str = ""
    exact_url: str = ""
    teacher: str = ""
    api_key_env: str = "OPENAI_API_KEY"
    system_prompt: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_tokens_field: str = "auto"
    seed: int | None = None
    retry_rejected: bool = False
    concurrency: int = 8
    timeout_s: float = 120.0
    max_attempts: int = 6
    backoff_s: float = 1.0
    max_backoff_s: float = 60.0
    max_failures_in_a_row: int = 20

    def __post_init__(self) -> None:
        _require(
            bool(self.endpoint) != bool(self.exact_url),
            "endpoint",
            self.endpoint,
            "either a base URL (--endpoint) or the whole URL of the chat completions (--url)",
        )
        name, given = ("endpoint", self.endpoint) if self.endpoint else ("url", self.exact_url)
        try:
            url = urlsplit(given)
            is_url = url.scheme in ("http", "https") and bool(url.hostname) and (url.port or 1) > 0
        except ValueError:
            url, is_url = urlsplit(""), False
        _require(is_url, name, given if "@" not in given else "…@…", "a URL")
        _require(
            not (url.username or url.password or (url.query and self.endpoint)),
            name,
            f"{url.scheme}://…@{url.hostname}…",
            "a URL without user or password, and a query only in --url; give the key by an environment variable",
        )
        _require(bool(self.model), "model", self.model, "a name")
        _require(self.output.suffix == ".parquet", "output", str(self.output), "a .parquet file")
        temperature, top_p = self.temperature, self.top_p
        _require(temperature is None or 0 <= temperature <= 2, "temperature", temperature, "0 to 2")
        _require(top_p is None or 0 < top_p <= 1, "top_p", top_p, "above 0, at most 1")
        fields = ("auto", "max_tokens", "max_completion_tokens")
        _require(
            self.max_tokens_field in fields,
            "max_tokens_field",
            self.max_tokens_field,
            f"one of {', '.join(fields)}",
        )
        for name in ("max_tokens", "concurrency", "max_attempts", "max_failures_in_a_row"):
            value = getattr(self, name)
            _require(value is None or value >= 1, name, value, "at least 1")
        _require(self.timeout_s > 0, "timeout_s", self.timeout_s, "above 0")
        _require(0 <= self.backoff_s <= self.max_backoff_s, "backoff_s", self.backoff_s, "0 to max_backoff_s")

    @property
    def url(self) -> str:
        """The chat-completions URL."""
        if self.exact_url:
            return self.exact_url
        base = self.endpoint.rstrip("/").removesuffix(_CHAT_PATH).rstrip("/")
        return (base if urlsplit(base).path else base + "/v1") + _CHAT_PATH

    @property
    def shown_url(self) -> str:
        """The URL as messages show it: without its query, which may hold a key."""
        return self.url.split("?")[0]

    @property
    def journal(self) -> Path:
        """Where answers are recorded as they come."""
        return self.output.with_name(self.output.stem + ".journal.jsonl")

    @property
    def rejected(self) -> Path:
        """Where answers that were kept out are written."""
        return self.output.with_name(self.output.stem + ".rejected.jsonl")

    def request(self) -> dict[str, Any]:
        """What decides an answer: the part of the settings that a continued collection must share. Unset is None."""
        return {
            "model": self.model,
            "system_prompt": self.system_prompt,
            "temperature": None if self.temperature is None else float(self.temperature),
            "top_p": None if self.top_p is None else float(self.top_p),
            "max_tokens": self.max_tokens,
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectProgress:
    """How far a collection is, in prompts; ``retries`` counts attempts beyond the first."""

    num_done: int
    num_prompts: int
    num_rejected: int
    num_retries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectReport:
    """What a collection gave.

    Attributes:
        num_prompts: Prompts in the input.
        num_pairs: Rows written.
        num_resumed: Answers taken over from the journal of an earlier call.
        num_rejected: Rows kept out, by reason: cut, empty, refused, unreadable, failed.
        num_retries: Attempts beyond the first in this call.
        completion_tokens: Tokens of all answers as the endpoint counts them, rejects included.
        elapsed_s: Seconds that this call took.
    """

    num_prompts: int
    num_pairs: int
    num_resumed: int
    num_rejected: dict[str, int]
    num_retries: int
    completion_tokens: int
    elapsed_s: float
    output: Path
    rejected: Path
    journal: Path


def _require(fine: bool, name: str, value: object, expected: str) -> None:
    if not fine:
        raise ConfigError(f"{name} is {value!r}", hint=f"expected {expected}")
