"""What a batcher has seen of its traffic: how fast requests come, and how fast they are answered."""

from __future__ import annotations

_SMOOTHING = 0.2
_SMALLEST_SHARE = 0.125
_PACE_HOLDS_S = 60.0
_SHORTEST_LOOK_S = 0.001


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
    """Tokens scored in a second of work, by the batches of late.

    Every token counts alike, so that a batch tells as much as it has of them. A small one takes much the same time whatever
    it holds, as does the first of a process: of how fast many tokens are scored they tell next to nothing.

    Args:
        budget: Tokens of a full batch. Fewer than an eighth of it count as an eighth, and nothing is expected before so
            many were scored.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._seen = 0.0
        self._seconds = 0.0
        self._tokens = 0.0
        self._last = 0.0
        self._worked_s = 0.0
        self._taken = 0.0

    def scored(self, tokens: int, seconds: float, *, now: float) -> None:
        """A batch is done.

        Args:
            tokens: Its tokens.
            seconds: The time it took.
            now: Seconds of a monotonic clock.
        """
        self._last = now
        self._worked_s += seconds
        counted = max(float(tokens), _SMALLEST_SHARE * self._budget)
        kept = (1.0 - _SMOOTHING) ** (counted / self._budget)
        self._seen += counted
        self._seconds = kept * self._seconds + seconds
        self._tokens = kept * self._tokens + counted

    def take_busy(self, now: float) -> float:
        """Work since the last call as a share of the time; a batch counts at its end, so that it may be above 1.

        Args:
            now: Seconds of the same clock.
        """
        share = self._worked_s / max(now - self._taken, _SHORTEST_LOOK_S)
        self._worked_s, self._taken = 0.0, now
        return share

    def seconds_for(self, tokens: int, *, now: float | None = None) -> float:
        """Expected time for so many tokens; 0 while too little was scored to tell.

        Args:
            tokens: The tokens.
            now: Seconds of the same clock: expect nothing by batches that are older than a minute.
        """
        if self._seen < self._budget or (now is not None and now - self._last > _PACE_HOLDS_S):
            return 0.0
        return self._seconds / self._tokens * tokens
