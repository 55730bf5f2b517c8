"""Runs that several tests look at."""

from __future__ import annotations

import pytest

from tests.game import Game, Outcome


@pytest.fixture(scope="session")
def whole_run(game: Game) -> Outcome:
    """Both stages from beginning to end, without a break."""
    return game.play("whole")
