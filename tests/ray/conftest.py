"""Runs that several files look at."""

from __future__ import annotations

import pytest

from tests.game import Game, Outcome


@pytest.fixture(scope="session")
def soda(game: Game) -> Outcome:
    """On two ranks, with two responses to a prompt."""
    return game.play("offline", "fit.soda.responses_per_prompt=2", "policy.group.num_ranks=2", fit="soda")
