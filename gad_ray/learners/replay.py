"""Past responses of the policy, kept as text so that the critic does not forget what it has learned to tell."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gad_ray.batch import Message
from gad_ray.config.critic import ReplayConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class PastResponse:
    """A response of the policy, with the prompt, the teacher's answer and the step it was drawn in."""

    messages: tuple[Message, ...]
    teacher: str
    response: str
    step: int


class ReplayBuffer:
    """A bounded buffer, oldest out first. Ranks that add the same responses draw the same ones."""

    def __init__(self, config: ReplayConfig, *, seed: int) -> None:
        """Make an empty buffer.

        Args:
            config: Size, ratio and age.
            seed: Seed of the drawing.
        """
        self._config = config
        self._rng = np.random.default_rng([seed, _STREAM])
        self._past: deque[PastResponse] = deque(maxlen=config.size)

    def __len__(self) -> int:
        return len(self._past)

    def draw(self, *, num_fresh: int, step: int) -> list[PastResponse]:
        """Past responses to go with a step's fresh ones, none twice, oldest first.

        Those above the greatest age are dropped first.

        Args:
            num_fresh: Fresh responses in the batch. As many are drawn as make the replayed ones the configured
                share of the whole, or all that there are.
            step: The step of the fresh responses.
        """
        oldest = self._config.max_age
        if oldest is not None:
            young = [past for past in self._past if step - past.step <= oldest]
            self._past = deque(young, maxlen=self._config.size)
        wanted = min(len(self._past), self._config.num_replayed(num_fresh))
        chosen = np.sort(self._rng.choice(len(self._past), size=wanted, replace=False)) if wanted else []
        return [self._past[int(i)] for i in chosen]

    def add(self, responses: Iterable[PastResponse]) -> None:
        """Take in a step's responses; the oldest make room."""
        self._past.extend(responses)

    def state(self) -> tuple[Tensor, dict[str, Any]]:
        """The responses as bytes of JSON, and the generator's state, for a checkpoint."""
        rows = [
            {
                "messages": [[m.role, m.content] for m in past.messages],
                "teacher": past.teacher,
                "response": past.response,
                "step": past.step,
            }
            for past in self._past
        ]
        text = json.dumps(rows).encode()
        return torch.frombuffer(bytearray(text), dtype=torch.uint8), dict(self._rng.bit_generator.state)

    def load_state(self, text: Tensor, rng: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave, bit for bit."""
        rows = json.loads(text.cpu().numpy().tobytes())
        self._past = deque(
            (
                PastResponse(
                    messages=tuple(Message(role=role, content=content) for role, content in row["messages"]),
                    teacher=row["teacher"],
                    response=row["response"],
                    step=row["step"],
                )
                for row in rows
            ),
            maxlen=self._config.size,
        )
        self._rng.bit_generator.state = dict(rng)


# Keeps the buffer's random numbers apart from others that are made of the run's seed.
_STREAM = 0x4EB1A7
