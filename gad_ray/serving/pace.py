"""What a batcher has seen of its traffic: how fast requests come, and how fast they are answered."""

from __future__ import annotations

_SMOOTHING = 0.2
_PACE_HOLDS_S = 60.0


class ArrivalPace:
    """How long it pays to wait for company: not at all where nobody is expected.

    Args:
        max_wait_s: Longest wait.
    """

    def __init__(self, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        self._interval_s: float | None = None
        self._last: float | None = None

    def arrived(self, now: float) -> None:
        """A request has come.

        Args:
            now: Seconds of a monotonic clock.
        """
        if self._last is not None:
            gap = now - self._last
            known = self._interval_s
            self._interval_s = gap if known is None else known + _SMOOTHING * (gap - known)
        self._last = now

    def wait_s(self, *, queued_tokens: int, budget: int) -> float:
        """Seconds to wait before a batch that is not full is begun.

        About as long as a second request takes to come at the pace of late, and nothing if that is longer than the
        longest wait: then the wait would only delay the first.

        Args:
            queued_tokens: Tokens that wait already.
            budget: Tokens of a full batch.
        """
        if queued_tokens >= budget or self._interval_s is None or self._interval_s >= self._max_wait_s:
            return 0.0
        return min(self._max_wait_s, 2.0 * self._interval_s)


class ScoringPace:
    """Tokens scored in a second of work, by the batches of late."""

    def __init__(self) -> None:
        self._seconds_per_token: float | None = None
        self._last = 0.0

    def scored(self, tokens: int, seconds: float, *, now: float) -> None:
        """A batch is done.

        Args:
            tokens: Its tokens.
            seconds: The time it took.
            now: Seconds of a monotonic clock.
        """
        self._last = now
        if tokens > 0:
            pace = seconds / tokens
            known = self._seconds_per_token
            self._seconds_per_token = pace if known is None else known + _SMOOTHING * (pace - known)

    def seconds_for(self, tokens: int, *, now: float | None = None) -> float:
        """Expected time for so many tokens; 0 before anything was scored.

        Args:
            tokens: The tokens.
            now: Seconds of the same clock: expect nothing by batches that are older than a minute.
        """
        if now is not None and now - self._last > _PACE_HOLDS_S:
            return 0.0
        return (self._seconds_per_token or 0.0) * tokens
