"""Scores that were given before, by fingerprint and text."""

from __future__ import annotations

from collections import OrderedDict

from gad_ray.serving.application.loaded_critic import PreparedPair, RowScore


class ScoreCache:
    """The scores used last, up to a number of tokens. Equal tokens under one fingerprint are equal text.

    Args:
        max_tokens: Scored tokens that are kept in all, each with its value; 0 keeps nothing.
    """

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._entries: OrderedDict[tuple[str, bytes], RowScore] = OrderedDict()
        self._num_tokens = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, fingerprint: str, pair: PreparedPair) -> RowScore | None:
        """The score that this critic has given to this pair, if it is still known."""
        key = (fingerprint, pair.key)
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, fingerprint: str, pair: PreparedPair, score: RowScore) -> None:
        """Keep a score; those not used for longest make room."""
        size = _size(score)
        if size > self._max_tokens:
            return
        key = (fingerprint, pair.key)
        before = self._entries.pop(key, None)
        self._num_tokens += size - (0 if before is None else _size(before))
        self._entries[key] = score
        while self._num_tokens > self._max_tokens:
            _, oldest = self._entries.popitem(last=False)
            self._num_tokens -= _size(oldest)


def _size(score: RowScore) -> int:
    return len(score.values)
