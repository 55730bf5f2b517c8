"""What is seen of the service from outside: Prometheus metrics in base units, and an access log without texts."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

SCORING_ROUTES = ("/v1/score", "/v1/rerank", "/v1/compare", "/get_reward")
ROUTES = (
    *SCORING_ROUTES,
    "/v1/models",
    "/health",
    "/ready",
    "/openapi.json",
)
OTHER = "other"
STATUSES = (200, 400, 401, 403, 404, 405, 408, 413, 415, 429, 499, 500, 503)

_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0]
_ROWS = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]
_SHARES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]

_access = logging.getLogger("ray.serve.gad_ray.access")


class Counter(Protocol):
    """Adds up."""

    def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        """Add a positive amount."""
        ...


class Gauge(Protocol):
    """Stands as it is."""

    def set(self, value: float, tags: dict[str, str] | None = None) -> None:
        """Set the value."""
        ...


class Histogram(Protocol):
    """Counts by size."""

    def observe(self, value: float, tags: dict[str, str] | None = None) -> None:
        """Count one value."""
        ...


class MetricLibrary(Protocol):
    """The module ``ray.util.metrics``, or what stands in for it."""

    @property
    def Counter(self) -> Callable[..., Counter]:  # noqa: N802 - as the module calls it
        """Makes a counter."""
        ...

    @property
    def Gauge(self) -> Callable[..., Gauge]:  # noqa: N802
        """Makes a gauge."""
        ...

    @property
    def Histogram(self) -> Callable[..., Histogram]:  # noqa: N802
        """Makes a histogram."""
        ...


@dataclass(slots=True)
class Work:
    """What one request came to, as far as metrics and the access log may know it."""

    pairs: int = 0
    tokens: int = 0
    fingerprint: str = ""


class ServingMetrics:
    """Everything that is measured. Labels are routes, statuses and causes, all from fixed lists.

    Ray rebuilds the sum of a histogram from the middles of its buckets: what a mean is wanted of has a counter of
    seconds beside it.

    Args:
        library: Makes the metrics.
    """

    def __init__(self, library: MetricLibrary) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return library.Counter(f"gad_serve_{name}", description=text, tag_keys=labels)

        def gauge(name: str, text: str) -> Gauge:
            return library.Gauge(f"gad_serve_{name}", description=text)

        def histogram(name: str, text: str, boundaries: list[float], *labels: str) -> Histogram:
            return library.Histogram(
                f"gad_serve_{name}", description=text, boundaries=boundaries, tag_keys=labels
            )

        self._requests = counter("requests", "Requests answered", "route", "status")
        self._latency = histogram("request_seconds", "Time to the answer", _SECONDS, "route")
        self._latency_sum = counter("request_time_seconds", "The same, added up exactly", "route")
        self._pairs = counter("pairs", "Pairs scored", "route")
        self._tokens = counter("tokens", "Tokens of the pairs scored", "route")
        self._batches = counter("batches", "Forward passes")
        self._batch_seconds = counter("batch_time_seconds", "Time in forward passes, added up")
        self._batch_rows = histogram("batch_rows", "Pairs of a forward pass", _ROWS)
        self._batch_fill = histogram("batch_fill_ratio", "Its tokens as a share of the budget", _SHARES)
        self._batch_tokens = counter("batch_tokens", "Tokens in forward passes")
        self._padded_tokens = counter("batch_padded_tokens", "The same with padding")
        self._spared = counter("spared_pairs", "Pairs that needed no computation", "cause")
        self._queue_requests = gauge("queue_requests", "Requests that wait or are being scored")
        self._queue_tokens = gauge("queue_tokens", "Their tokens")
        self._queue_seconds = gauge("queue_seconds", "Time that these take, at the pace of late")
        self._swaps = counter("swaps", "New versions", "result")
        self._adapters = counter("adapters", "Adapters loaded, refused, or taken out of memory", "result")
        self._step = gauge("model_step", "Optimiser steps of the critic that is served")
        self._fingerprint = gauge(
            "model_fingerprint", "First 12 hex digits, as a number, of the fingerprint of the critic served"
        )

    def request_done(self, *, route: str, status: int, seconds: float, work: Work) -> None:
        """A request was answered.

        Args:
            route: One of ``ROUTES``, or ``other``.
            status: Its HTTP status.
            seconds: Time from its arrival to its answer.
            work: What it came to.
        """
        tags = {"route": route}
        shown = str(status) if status in STATUSES else OTHER
        self._requests.inc(1.0, tags={**tags, "status": shown})
        self._latency.observe(max(seconds, 0.0), tags=tags)
        for counter, value in (
            (self._latency_sum, seconds),
            (self._pairs, work.pairs),
            (self._tokens, work.tokens),
        ):
            if value > 0:  # Ray refuses to advance a counter by nothing.
                counter.inc(float(value), tags=tags)

    def batch_done(self, *, rows: int, tokens: int, padded_tokens: int, budget: int, seconds: float) -> None:
        """As ``BatchWatcher`` says."""
        self._batches.inc(1.0)
        self._batch_rows.observe(float(rows))
        self._batch_fill.observe(tokens / budget)
        self._batch_tokens.inc(float(tokens))
        self._padded_tokens.inc(float(padded_tokens))
        if seconds > 0:
            self._batch_seconds.inc(seconds)

    def queue_changed(self, *, requests: int, tokens: int, seconds: float) -> None:
        """As ``BatchWatcher`` says."""
        self._queue_requests.set(float(requests))
        self._queue_tokens.set(float(tokens))
        self._queue_seconds.set(seconds)

    def rows_spared(self, *, equal: int, cached: int) -> None:
        """As ``BatchWatcher`` says."""
        for cause, count in (("equal", equal), ("cached", cached)):
            if count:
                self._spared.inc(float(count), tags={"cause": cause})

    def version_served(self, *, fingerprint: str, step: int) -> None:
        """A critic answers from now on."""
        self._step.set(float(step))
        self._fingerprint.set(float(int(fingerprint[:12], 16)))

    def swap_done(self, *, accepted: bool) -> None:
        """A new version was loaded, or refused."""
        self._swaps.inc(1.0, tags={"result": "accepted" if accepted else "refused"})

    def adapter_done(self, *, result: str) -> None:
        """As ``AdapterWatcher`` says."""
        self._adapters.inc(1.0, tags={"result": result})


def route_of(path: str) -> str:
    """A path's name in metrics and logs."""
    return path if path in ROUTES else OTHER


def log_access(*, request_id: str, method: str, route: str, status: int, seconds: float, work: Work) -> None:
    """One line of JSON for a request: what was asked of whom and how it went, never with which text or key."""
    entry: dict[str, Any] = {
        "request_id": request_id,
        "method": method if method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH") else OTHER,
        "route": route,
        "status": status,
        "seconds": round(seconds, 6),
        "pairs": work.pairs,
        "tokens": work.tokens,
        "fingerprint": work.fingerprint[:16],
    }
    _access.info("%s", json.dumps(entry))
