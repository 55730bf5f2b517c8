"""A critic as it is served: one model under one fingerprint, which never changes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from gad_ray.batch import Fingerprint, Message
from gad_ray.critics.store import open_value_head
from gad_ray.critics.value_head import ValueHeadCritic
from gad_ray.errors import ModelError
from gad_ray.models.chat import ChatFormat
from gad_ray.models.critic import CriticModel
from gad_ray.models.critic_state import CriticState, critic_of
from gad_ray.models.pairs import Pair, TokenRow
from gad_ray.serving.application.errors import ApiError

_WARM_UP = Pair((Message(role="user", content="Hello!"),), "Hello! How are you?")


@dataclass(frozen=True, slots=True)
class PreparedPair:
    """A pair as token ids, ready to be scored.

    Attributes:
        row: The tokens, at most as many as the critic takes.
        key: Equal for equal tokens with equal parts that are scored.
        truncated: Whether the response was cut.
    """

    row: TokenRow
    key: bytes
    truncated: bool

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True, slots=True)
class RowScore:
    """What the critic gives for one row.

    Attributes:
        score: float32 as a Python number.
        values: [n] float32 value of each token that is scored.
    """

    score: float
    values: NDArray[np.float32]


class RowScorer(Protocol):
    """Scores rows of tokens. May be called from several threads at once."""

    @property
    def fingerprint(self) -> str:
        """Digest that tells this critic from others."""
        ...

    @property
    def end_to_end(self) -> bool:
        """Whether rows go through it end to end: nothing is padded, and a common prompt is computed once."""
        ...

    def score_rows(self, rows: Sequence[TokenRow]) -> list[RowScore]:
        """Score the rows in one forward pass."""
        ...


class ServedCritic:
    """A critic with what its answers say of it.

    Attributes:
        fingerprint: SHA-256 over everything that a score depends on.
        parts: The same, part by part.
        step: Optimiser steps that it has taken.
        temperature: τ of its loss.
        max_tokens: Longest prompt plus response.
        dtype: Type of its backbone's weights.
        loaded_at: Unix time.
        end_to_end: Whether rows are not padded, and a common prompt is computed once: where the backbone can.
    """

    def __init__(self, opened: ValueHeadCritic) -> None:
        """Check a critic and take it over.

        Raises:
            ModelError: If a weight, or the score of a first text, is not finite.
        """
        self._model: CriticModel = opened.model
        self._model.check_finite()
        self.parts: Fingerprint = self._model.fingerprint()
        self._model.pack()
        self.fingerprint: str = self.parts.digest
        self.step = opened.step
        self.temperature = opened.temperature
        self.max_tokens: int = self._model.encoder.max_tokens
        self.dtype: str = self._model.dtype
        self.loaded_at = int(time.time())
        self.end_to_end = self._model.packs
        self._warm_up()

    @classmethod
    def load(cls, directory: Path, *, device: torch.device | None = None) -> ServedCritic:
        """Load a checkpoint or an export, and score a first text.

        Raises:
            GadError: If it cannot be loaded, is not what it says it is, or is not finite.
        """
        opened = open_value_head(directory)
        opened.model.to(device)
        return cls(opened)

    @classmethod
    def of_state(cls, state: CriticState, *, device: torch.device | None = None) -> ServedCritic:
        """Build a published critic, and score a first text.

        Raises:
            GadError: If it cannot be built, is not what it says it is, or is not finite.
        """
        model = critic_of(state)
        model.to(device)
        return cls(ValueHeadCritic(model=model, step=state.step, temperature=state.temperature))

    @property
    def model(self) -> CriticModel:
        """The model; whoever takes it may compute with it, and must not change it."""
        return self._model

    @property
    def chat(self) -> ChatFormat:
        """Template and tokenizer."""
        return self._model.encoder.chat

    def prepare(self, pair: Pair, *, truncate: bool, where: str) -> PreparedPair:
        """Tokenise a pair.

        Args:
            pair: The pair, as text; what looks like a control token in it is text.
            truncate: Cut the end of a response that is too long, in place of refusing it.
            where: The field it came from, for the error.

        Raises:
            ApiError: 400, if it has more tokens than the critic takes.
        """
        row = self._model.encoder.tokenize(pair)
        truncated = len(row) > self.max_tokens
        if truncated:
            if not truncate or row.start >= self.max_tokens:
                raise too_long(row, self.max_tokens, truncate=truncate, where=where)
            row = TokenRow(ids=row.ids[: self.max_tokens], start=row.start)
        prompt = hashlib.sha256(row.ids[: row.start].tobytes()).digest()
        key = hashlib.sha256(prompt + row.ids[row.start :].tobytes()).digest()
        return PreparedPair(row=row, key=key, truncated=truncated)

    def score_rows(self, rows: Sequence[TokenRow]) -> list[RowScore]:
        """Score the rows in one forward pass, by the method that training's evaluation and ``gad-ray score`` use."""
        scores, values = self._model.score_rows(rows)
        return [RowScore(float(score), value) for score, value in zip(scores, values, strict=True)]

    def _warm_up(self) -> None:
        """Score a first text."""
        row = self._model.encoder.tokenize(_WARM_UP)
        # A critic may be made for shorter texts than this one.
        length = max(1, min(len(row), self.max_tokens))
        first = TokenRow(ids=row.ids[:length], start=min(row.start, length - 1))
        [found] = self.score_rows([first])
        if not np.isfinite(found.score):
            raise ModelError(
                f"its score of a first text is {found.score}",
                hint="serve an earlier checkpoint of the run; gad-ray diagnose says what went wrong",
            )


def too_long(row: TokenRow, limit: int, *, truncate: bool, where: str) -> ApiError:
    """400: a pair has more tokens than the critic takes."""
    told = f"prompt and response have {len(row)} tokens, the critic takes {limit}"
    if truncate:
        told += f"; the prompt alone has {row.start}, so that nothing of the response is left to score"
    else:
        told += '; shorten them, or ask for "truncate": "response" to have the response\'s end cut'
    return ApiError(told, code="context_length_exceeded", param=where)
