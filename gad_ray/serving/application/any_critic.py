"""A critic that is no value head, as it is served: it scores text, and its text is counted in bytes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from gad_ray.batch import Message
from gad_ray.critics.base import SETTINGS_FILE, Critic, open_settings
from gad_ray.errors import ModelError
from gad_ray.models.chat import ChatFormat
from gad_ray.models.critic import CriticModel
from gad_ray.models.pairs import Pair, TokenRow
from gad_ray.serving.application.errors import ApiError
from gad_ray.serving.application.loaded_critic import PreparedPair, RowScore, ServedCritic, too_long

_MAX_BYTES = 262_144
"""Longest prompt plus response. What is behind it may bound them further."""

_FIRST = Pair((Message(role="user", content="Hello!"),), "Hello! How are you?")


class AnyServedCritic(ServedCritic):
    """Any :class:`~gad_ray.critics.base.Critic` with what its answers say of it.

    A row of "tokens" is the pair itself, as UTF-8: batches, limits and the cache then work as with a value head.
    """

    def __init__(self, critic: Critic) -> None:
        """Take a critic over, and score a first text.

        Raises:
            ModelError: If that score is not finite.
        """
        self._critic = critic
        self.parts = critic.fingerprint()
        self.fingerprint = self.parts.digest
        self.step, self.temperature = critic.step, 1.0
        self.max_tokens, self.dtype = _MAX_BYTES, self.parts.dtype
        self.loaded_at = int(time.time())
        self.end_to_end = True
        if not np.isfinite(critic.score([_FIRST])).all():
            raise ModelError(
                "its score of a first text is not finite", where=critic.where, hint="take another"
            )

    @property
    def model(self) -> CriticModel:
        """There is none."""
        raise ModelError(
            "the critic has no backbone of its own", where=self._critic.where, hint="name one with --backbone"
        )

    @property
    def chat(self) -> ChatFormat:
        """There is none: what needs one is refused."""
        raise ApiError(
            "this critic reads text as it is: it has no chat template and no values of single tokens; ask /v1/score for "
            "scores alone",
            code="not_a_value_head",
        )

    def prepare(self, pair: Pair, *, truncate: bool, where: str) -> PreparedPair:
        """A pair as bytes; as of a value head."""
        prompt = json.dumps([asdict(message) for message in pair.messages]).encode()
        response = pair.response.encode()
        truncated = len(prompt) + len(response) > self.max_tokens
        if truncated:
            if not truncate or len(prompt) >= self.max_tokens:
                whole = TokenRow(ids=np.zeros(len(prompt) + len(response), np.int32), start=len(prompt))
                raise too_long(whole, self.max_tokens, truncate=truncate, where=where)
            # Not within a character.
            response = response[: self.max_tokens - len(prompt)].decode(errors="ignore").encode()
        ids = np.frombuffer(prompt + response, dtype=np.uint8).astype(np.int32)
        of_prompt = hashlib.sha256(prompt).digest()
        return PreparedPair(
            row=TokenRow(ids=ids, start=len(prompt)),
            key=hashlib.sha256(of_prompt + response).digest(),
            truncated=truncated,
        )

    def score_rows(self, rows: Sequence[TokenRow]) -> list[RowScore]:
        """Score the pairs that the rows are."""
        nothing = np.zeros(0, dtype=np.float32)
        return [
            RowScore(float(score), nothing) for score in self._critic.score([_pair_of(row) for row in rows])
        ]


def load_served(directory: Path, *, device: torch.device | None = None) -> ServedCritic:
    """The critic in a directory, ready to be served: a checkpoint, or the export of any critic.

    Raises:
        GadError: If it cannot be opened, is not what it says it is, or is not finite.
    """
    if (directory / SETTINGS_FILE).is_file():
        return AnyServedCritic(open_settings(directory))
    return ServedCritic.load(directory, device=device)


def _pair_of(row: TokenRow) -> Pair:
    told = row.ids.astype(np.uint8).tobytes()
    messages = tuple(Message(**message) for message in json.loads(told[: row.start]))
    return Pair(messages, told[row.start :].decode())
