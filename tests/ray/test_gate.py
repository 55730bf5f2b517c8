"""A warm-up that ends when the critic is ready, as real runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.game import Game, Outcome, comparable

LEARNS = (
    "stages.adversarial.steps=2",
    "policy.kl.coefficient=0",
    "evaluation.every=0",
    "critic.head_lr=0.05",
    "critic.optimizer.lr=0.003",
    "critic.loss.temperature.value=2.0",
)


def events(outcome: Outcome) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (outcome.root / "events.jsonl").read_text().splitlines()]
