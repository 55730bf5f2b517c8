"""Collect a teacher's answers from any OpenAI-compatible endpoint, so that a broken run can go on.

``collect`` asks ``/v1/chat/completions`` for every prompt, records each answer in an fsynced journal
beside the output as it comes, and at the end writes the pairs (Parquet) and the rejects (JSONL). A second
call with the same settings asks only for what is missing or had failed.
"""

from __future__ import annotations

import asyncio
import email.utils
import os
import random
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from gad_ray import __version__
from gad_ray.addresses import warn_of_plain_key
from gad_ray.data.collect_files import (
    Answer,
    Journal,
    PromptRow,
    Status,
    as_messages,
    read_prompts,
    write_pairs,
    write_rejected,
)
from gad_ray.data.collect_reply import (
    MAX_REPLY_BYTES,
    ReadReply,
    UnreadableReplyError,
    carried,
    read_reply,
)
from gad_ray.data.collect_settings import CollectProgress, CollectReport, CollectSettings
from gad_ray.errors import ConfigError, DataError, GadError

if TYPE_CHECKING:
    import httpx
    from tenacity import RetryCallState

_TRANSIENT_STATUS = frozenset({408, 409, 425, 429})
_WRONG_SETUP_STATUS = frozenset({401, 403, 404, 405})
_LONGEST_RETRY_AFTER_S = 600.0
_LONGEST_ERROR_BYTES = 64 * 2**10
_SAMPLING = ("temperature", "top_p", "seed", "max_tokens")
_UNSUPPORTED = "unsupported|not support|not allow|not permit|deprecat|unknown|unrecogni|unexpected|extra|cannot both|invalid|must be"


_ASKED_AGAIN = frozenset({"failed"})
_REJECTED = frozenset({"cut", "empty", "refused", "unreadable"})

__all__ = ["CollectProgress", "CollectReport", "CollectSettings", "collect"]

OnProgress = Callable[[CollectProgress], None]


def collect(settings: CollectSettings, on_progress: OnProgress | None = None) -> CollectReport:
    """Ask the teacher for every prompt and write the pairs.

    Args:
        settings: What to ask whom.
        on_progress: Called after every prompt.

    Raises:
        DataError: Prompts that cannot be used, a journal of another collection, or no usable answer at all.
        ConfigError: The endpoint refuses the key, or does not know the model or path (nothing is retried).
        GadError: Too many prompts failed one after the other. What was answered stays in the journal.
    """
    started = time.monotonic()
    rows = read_prompts(settings.input)
    if settings.system_prompt is not None:
        _refuse_second_system_message(rows, settings.input)
    with Journal(settings.journal, request=settings.request(), rows=rows) as journal:
        again = frozenset(_ASKED_AGAIN if not settings.retry_rejected else _ASKED_AGAIN | _REJECTED)
        todo = [row for row in rows if _is_open(journal.answers.get(row.id), again)]
        kept = [answer for answer in journal.answers.values() if not _is_open(answer, again)]
        run = _Run(
            settings=settings,
            journal=journal,
            num_prompts=len(rows),
            on_progress=on_progress,
            key=_key_from(settings.api_key_env),
            num_done=len(kept),
            num_rejected=sum(answer.status != "ok" for answer in kept),
        )
        asyncio.run(run.ask_all(todo))
        return _write(settings, rows, journal, resumed=len(kept), run=run, started=started)


def _key_from(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"the key in the environment variable {variable} cannot stand in an HTTP header",
            hint="a key is one line of ASCII characters",
        )
    return key


def _is_open(answer: Answer | None, again: Collection[str]) -> bool:
    return answer is None or answer.status in again


def _refuse_second_system_message(rows: list[PromptRow], path: Path) -> None:
    for row in rows:
        if not isinstance(row.content, str) and any(m["role"] == "system" for m in row.content):
            raise DataError(
                f"prompt {row.id!r} brings a system message, and a system prompt is set",
                where=str(path),
                hint="leave the system prompt out, or take the message out of the row",
            )


def _write(
    settings: CollectSettings,
    rows: list[PromptRow],
    journal: Journal,
    *,
    resumed: int,
    run: _Run,
    started: float,
) -> CollectReport:
    answered = [(row, journal.answers[row.id]) for row in rows]
    counts = Counter(answer.status for _, answer in answered if answer.status != "ok")
    write_rejected(settings.rejected, ((row, a) for row, a in answered if a.status != "ok"))
    if counts.total() == len(rows):
        raise DataError(
            f"not one of {len(rows)} answers can be used: {dict(counts)}",
            where=str(settings.rejected),
            hint="read the reasons there",
        )
    num_pairs = write_pairs(
        settings.output,
        ((row, a.response, _meta(settings, row, a)) for row, a in answered if a.status == "ok"),
        # Told by the prompts and not by those that were answered: the column's type does not depend on the teacher.
        as_chat=not all(isinstance(row.content, str) for row in rows),
    )
    return CollectReport(
        num_prompts=len(rows),
        num_pairs=num_pairs,
        num_resumed=resumed,
        num_rejected={str(status): count for status, count in sorted(counts.items())},
        num_retries=run.num_retries,
        completion_tokens=sum(answer.completion_tokens for _, answer in answered),
        elapsed_s=time.monotonic() - started,
        output=settings.output,
        rejected=settings.rejected,
        journal=settings.journal,
    )


def _meta(settings: CollectSettings, row: PromptRow, answer: Answer) -> dict[str, Any]:
    return {
        **row.extra,
        **{key: value for key, value in settings.request().items() if value is not None},
        "teacher": settings.teacher or settings.model,
        "model": answer.model,
        "finish_reason": answer.finish_reason,
        "collected_at": answer.collected_at,
        "tool": f"gad-ray {__version__}",
    }


class _TransientError(Exception):
    """An attempt that may succeed when it is made again."""

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class _UnreadableError(_TransientError):
    """A reply that is no chat completion, though another attempt may give one."""


class _FinalError(Exception):
    """A reply that is no chat completion and will not become one."""


class _RefusedError(Exception):
    """The endpoint answers this prompt with an error that stays the same when asked again."""


@dataclass(slots=True, kw_only=True)
class _Run:
    """One call's requests: workers that draw prompts from one iterator."""

    settings: CollectSettings
    journal: Journal
    num_prompts: int
    on_progress: OnProgress | None
    key: str = field(repr=False)
    num_done: int
    num_rejected: int
    num_retries: int = 0
    num_failures_in_a_row: int = 0
    num_answered: int = 0
    max_tokens_name: str = "max_tokens"

    def __post_init__(self) -> None:
        if self.settings.max_tokens_field != "auto":
            self.max_tokens_name = self.settings.max_tokens_field

    async def ask_all(self, todo: list[PromptRow]) -> None:
        """Answer every prompt of ``todo`` into the journal."""
        import httpx

        if not todo:
            return
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        limits = httpx.Limits(max_connections=self.settings.concurrency)
        prompts = iter(todo)
        warn_of_plain_key(self.settings.url, self.key)
        try:
            client = httpx.AsyncClient(headers=headers, timeout=self.settings.timeout_s, limits=limits)
        except (ValueError, httpx.InvalidURL, ImportError) as error:
            raise ConfigError(
                f"the proxy of the environment cannot be used{_proxy_for(self.settings.url)}: {type(error).__name__}",
                hint="correct HTTP_PROXY, HTTPS_PROXY or ALL_PROXY, or name the host in NO_PROXY",
            ) from None
        async with client:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.settings.concurrency, len(todo))):
                        group.create_task(self._work(client, prompts))
            except BaseExceptionGroup as errors:
                raise _first_leaf(errors) from None

    async def _work(self, client: httpx.AsyncClient, prompts: Iterator[PromptRow]) -> None:
        for row in prompts:
            answer = await self._ask(client, row)
            self.journal.append(answer)
            if answer.status in ("failed", "unreadable"):
                self._count_failure(answer)
            else:
                self.num_failures_in_a_row = 0
            self.num_done += 1
            self.num_rejected += answer.status != "ok"
            if self.on_progress is not None:
                self.on_progress(
                    CollectProgress(
                        num_done=self.num_done,
                        num_prompts=self.num_prompts,
                        num_rejected=self.num_rejected,
                        num_retries=self.num_retries,
                    )
                )

    def _count_failure(self, answer: Answer) -> None:
        self.num_failures_in_a_row += 1
        if self.num_failures_in_a_row >= self.settings.max_failures_in_a_row:
            raise GadError(
                f"{self.num_failures_in_a_row} prompts failed one after the other; the last: {answer.reason}",
                where=self.settings.shown_url,
                hint=f"look after the endpoint and call again; the answers are kept in {self.journal.path}",
            )

    async def _ask(self, client: httpx.AsyncClient, row: PromptRow) -> Answer:
        from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

        attempts = 0
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_TransientError),
            stop=stop_after_attempt(self.settings.max_attempts),
            wait=self._wait_s,
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    attempts += 1
                    self.num_retries += attempts > 1
                    return self._answer(row, await self._post(client, row), attempts)
        except (_UnreadableError, _FinalError) as error:
            return self._record(row, "unreadable", attempts, reason=str(error))
        except (_TransientError, _RefusedError) as error:
            return self._record(row, "failed", attempts, reason=str(error))
        raise AssertionError("tenacity ended without a result")  # pragma: no cover

    def _wait_s(self, state: RetryCallState) -> float:
        """Exponential backoff with full jitter, and never less than the endpoint asks for."""
        ceiling = min(
            self.settings.max_backoff_s, self.settings.backoff_s * 2.0 ** (state.attempt_number - 1)
        )
        error = state.outcome.exception() if state.outcome is not None else None
        asked = error.retry_after_s if isinstance(error, _TransientError) else 0.0
        return asked + random.uniform(0.0, ceiling)

    async def _post(self, client: httpx.AsyncClient, row: PromptRow) -> ReadReply:
        import httpx

        sent_as = self.max_tokens_name
        try:
            # httpx counts its limit anew for each chunk that arrives; this one is for the whole request.
            async with (
                asyncio.timeout(self.settings.timeout_s),
                client.stream("POST", self.settings.url, json=self._body(row, sent_as)) as reply,
            ):
                is_fine = reply.status_code == 200
                content = await _bounded(reply, MAX_REPLY_BYTES if is_fine else _LONGEST_ERROR_BYTES)
        except TimeoutError as error:
            raise _TransientError(f"no answer within {self.settings.timeout_s:g} s") from error
        except (httpx.RequestError, httpx.InvalidURL) as error:
            proxy = _proxy_for(self.settings.url)
            raise _TransientError(f"{type(error).__name__}: {carried(str(error))}{proxy}") from error
        if not is_fine:
            text = carried(content[:_LONGEST_ERROR_BYTES].decode("utf-8", errors="replace"))
            if self._learns_from(reply.status_code, text, sent_as):
                return await self._post(client, row)
            raise self._error_of(reply, text)
        if len(content) > MAX_REPLY_BYTES:
            raise _FinalError(f"the endpoint's answer is longer than {MAX_REPLY_BYTES // 2**20} MiB")
        try:
            return read_reply(content)
        except UnreadableReplyError as error:
            raise (_FinalError if error.final else _UnreadableError)(self._without_key(str(error))) from None

    def _body(self, row: PromptRow, max_tokens_name: str) -> dict[str, Any]:
        """The request: what is not set is not sent."""
        messages = as_messages(row.content)
        if self.settings.system_prompt is not None:
            messages = [{"role": "system", "content": self.settings.system_prompt}, *messages]
        body = {k: v for k, v in self.settings.request().items() if k != "system_prompt" and v is not None}
        if "max_tokens" in body:
            body[max_tokens_name] = body.pop("max_tokens")
        return {**body, "messages": messages}

    def _learns_from(self, status: int, text: str, sent_as: str) -> bool:
        """Whether the endpoint asks for max_completion_tokens in place of max_tokens; all requests go over to it then."""
        if (
            status not in (400, 422)
            or self.settings.max_tokens_field != "auto"
            or self.settings.max_tokens is None
        ):
            return False
        if sent_as == "max_tokens" and "max_completion_tokens" in text:
            self.max_tokens_name = "max_completion_tokens"
            return True
        return False

    def _refused_setting(self, text: str) -> str | None:
        """The sampling setting that an endpoint's error names, before it has answered anything."""
        if self.num_answered:
            return None
        for name in _SAMPLING:
            if self.settings.request()[name] is None:
                continue
            sent = self.max_tokens_name if name == "max_tokens" else name
            near = rf"\b{sent}\b.{{0,80}}(?:{_UNSUPPORTED})|(?:{_UNSUPPORTED}).{{0,80}}\b{sent}\b"
            if name == "max_tokens" and "too large" in text:
                continue  # the length of this prompt is to blame
            if re.search(near, text, re.IGNORECASE | re.DOTALL):
                return name
        return None

    def _without_key(self, text: str) -> str:
        """A text without the key: some endpoints repeat it in their error."""
        return text.replace(self.key, "***") if self.key else text

    def _error_of(self, reply: httpx.Response, text: str) -> Exception:
        text = self._without_key(" ".join(text.split()))
        status = reply.status_code
        reason = f"HTTP {status}: {text[:300] or reply.reason_phrase}"
        if status in _TRANSIENT_STATUS or status >= 500:
            return _TransientError(reason, retry_after_s=_retry_after_s(reply.headers.get("retry-after")))
        if status in _WRONG_SETUP_STATUS or 300 <= status < 400:
            variable = self.settings.api_key_env
            hint = f"check endpoint and model name ({self.settings.model!r})"
            if status in (401, 403):
                state = "is set but not accepted" if self.key else "is not set"
                hint = f"put a valid key into the environment variable {variable}, which {state}"
            return ConfigError(reason, where=self.settings.shown_url, hint=hint)
        if status in (400, 422) and (name := self._refused_setting(text)):
            option = "--" + name.replace("_", "-")
            return ConfigError(
                f"the endpoint refuses {name} = {self.settings.request()[name]!r}: {reason}",
                where=self.settings.shown_url,
                hint=f"leave {option} out: what is not set is not sent",
            )
        return _RefusedError(reason)

    def _answer(self, row: PromptRow, reply: ReadReply, attempts: int) -> Answer:
        self.num_answered += 1
        status, reason = reply.problem or ("ok", "")
        if status == "cut" and self.settings.max_tokens is not None:
            reason = f"reached max_tokens ({self.settings.max_tokens})"
        return self._record(row, cast(Status, status), attempts, reason=reason, reply=reply)

    def _record(
        self, row: PromptRow, status: Status, attempts: int, *, reason: str, reply: ReadReply | None = None
    ) -> Answer:
        return Answer(
            id=row.id,
            status=status,
            response=reply.text if reply else "",
            finish_reason=reply.finish_reason if reply else None,
            model=(reply.model if reply else "") or self.settings.model,
            reason=reason,
            attempts=attempts,
            prompt_tokens=reply.prompt_tokens if reply else 0,
            completion_tokens=reply.completion_tokens if reply else 0,
            collected_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )


async def _bounded(reply: httpx.Response, limit: int) -> bytes:
    """The body, or a beginning of it that is longer than ``limit``."""
    content = bytearray()
    async for chunk in reply.aiter_bytes():
        content += chunk
        if len(content) > limit:
            break
    return bytes(content)


def _proxy_for(url: str) -> str:
    """Which proxy the environment puts between here and a URL, in words and without its credentials."""
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    name = next((kind for kind in (parts.scheme, "all") if proxies.get(kind)), None)
    if name is None or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    given = proxies[name].rpartition("@")[2]
    return f" (through the proxy {given.removeprefix(f'{name}://')} of {name.upper()}_PROXY)"


def _retry_after_s(header: str | None) -> float:
    """Seconds asked for by a Retry-After header (a number or an HTTP date), 0 where there is none."""
    if not header:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = (email.utils.parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_S)


def _first_leaf(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first = errors.exceptions[0]
    while isinstance(first, BaseExceptionGroup):
        first = cast("BaseExceptionGroup[BaseException]", first).exceptions[0]
    return first
