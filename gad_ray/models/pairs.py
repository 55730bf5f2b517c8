"""From text to what the critic reads: (prompt, response) pairs, tokenised by the critic's own tokenizer."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gad_ray.batch import Message
from gad_ray.errors import DataError
from gad_ray.models.chat import ChatFormat

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Pair:
    """A response to a prompt, as text."""

    messages: tuple[Message, ...]
    response: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """One pair as token ids.

    Attributes:
        ids: int32 tokens of the rendered prompt and the response; no end-of-turn token.
        start: First position that is scored. The response's first token; for an empty response the last
            token of the prompt, so that a critic can learn what silence is worth.
    """

    ids: NDArray[np.int32]
    start: int

    def __len__(self) -> int:
        return len(self.ids)


class PairEncoder:
    """Renders and tokenises pairs in one way for every source of text: teacher, student, HTTP."""

    def __init__(self, chat: ChatFormat, *, max_tokens: int) -> None:
        """Wrap the critic's chat format.

        Args:
            chat: The critic's tokenizer and template.
            max_tokens: Longest prompt plus response.
        """
        self.chat = chat
        self.max_tokens = max_tokens

    def encode(self, pair: Pair) -> TokenRow:
        """Tokenise one pair.

        Raises:
            DataError: If the pair is longer than ``max_tokens``: it is never cut.
        """
        row = self.tokenize(pair)
        if len(row) > self.max_tokens:
            raise DataError(
                f"prompt and response have {len(row)} tokens in the critic's tokenizer, more than its limit of "
                f"{self.max_tokens}; the prompt begins {pair.messages[-1].content[:60]!r}",
                hint="raise critic.max_tokens, or lower data.max_prompt_tokens or rollout.max_response_tokens",
            )
        return row

    def tokenize(self, pair: Pair) -> TokenRow:
        """Tokenise one pair of any length; what is longer than ``max_tokens`` must not be scored as it is."""
        prompt = self.chat.prompt_ids(pair.messages)
        response = self.chat.response_ids(pair.response)
        start = len(prompt) if response else len(prompt) - 1
        return TokenRow(ids=np.asarray(prompt + response, dtype=np.int32), start=start)


def deduplicate(items: Sequence[T]) -> tuple[list[T], NDArray[np.int64]]:
    """Distinct items in order of appearance, and for each item the index of its representative."""
    first: dict[T, int] = {}
    index = np.fromiter(
        (first.setdefault(item, len(first)) for item in items), dtype=np.int64, count=len(items)
    )
    return list(first), index
