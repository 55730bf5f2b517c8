"""Sizes of a simulated run, and how its figures are tabled."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from gad_ray.bench.controller.actors import CHARS_PER_TOKEN, text_of
from gad_ray.bench.controller.scale import sizes_up_to, table
from gad_ray.cli import app
from gad_ray.errors import ConfigError


def test_workers_double_up_to_the_most_and_ranks_keep_their_share() -> None:
    assert sizes_up_to(8, 2) == [(1, 1), (2, 1), (4, 1), (8, 2)]
    assert sizes_up_to(6, 3) == [(1, 1), (2, 1), (4, 2), (6, 3)]
    assert sizes_up_to(1, 1) == [(1, 1)]


def test_a_text_is_as_long_as_asked_for_and_not_plain_ascii() -> None:
    text = text_of(1000)
    assert len(text) == 1000 * CHARS_PER_TOKEN
    assert not text.isascii()


def test_simulated_actors_load_no_torch() -> None:
    told = "import sys, gad_ray.bench.controller.actors; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_row_for_every_size() -> None:
    row = {
        "workers": 4,
        "ranks": 2,
        "calls": 13.0,
        "sent_mib": 1.25,
        "seconds": {"median": 8.0, "low": 7.5, "high": 9.0},
        "efficiency": 0.95,
    }
    _, shown = table({"rows": [row]})
    assert shown == ["4", "2", "13", "1.2", "8.00 (7.50 to 9.00)", "0.950"]


def test_seconds_that_are_not_four_numbers_are_refused() -> None:
    result = CliRunner().invoke(app, ["bench", "scale", "--seconds", "1,2"])
    assert isinstance(result.exception, ConfigError)
    assert "four numbers" in str(result.exception)


@pytest.mark.parametrize("command", ["exchange", "scale"])
def test_a_shape_that_is_none_is_refused(command: str) -> None:
    result = CliRunner().invoke(app, ["bench", command, "--shape", "4x2"])
    assert isinstance(result.exception, ConfigError)
    assert result.exception.where == "--shape"
