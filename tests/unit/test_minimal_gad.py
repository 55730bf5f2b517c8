"""The example of the whole game in one process runs, and plays what it says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from examples.minimal_gad import Game, Pair, main, play
from tests.unit.builders import PROMPTS, TEACHER


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"content": p, "teacher_response": t} for p, t in zip(PROMPTS, TEACHER, strict=True)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_it_runs_from_the_command_line(
    tied_model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--warmup", "2", "--steps", "2", "--responses", "3", "--max-tokens", "8"]
    course = main(["--model", str(tied_model), "--data", str(data), *sizes])
    assert 1 <= len(course) <= 4
    assert all(math.isfinite(value) for row in course for value in row.values())
    assert capsys.readouterr().out.count("d_acc") == len(course)


def test_the_policy_stands_still_in_the_warm_up_and_moves_in_the_game(tied_model: Path) -> None:
    game = Game(str(tied_model), policy_lr=1e-3, critic_lr=1e-3, max_tokens=8)
    pairs = [Pair(game.prompt_ids(PROMPTS[0]), TEACHER[0])]

    def weights(module: torch.nn.Module) -> torch.Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in module.parameters()]).clone()

    policy, critic = weights(game.policy), weights(game.critic)
    assert play(game, pairs, warmup=3, steps=0, count=4, seed=1)
    assert torch.equal(weights(game.policy), policy)
    assert not torch.equal(weights(game.critic), critic)
    assert play(game, pairs, warmup=0, steps=3, count=4, seed=1)
    assert not torch.equal(weights(game.policy), policy)


def test_the_critic_learns_to_tell_the_teacher_from_the_student(tied_model: Path) -> None:
    game = Game(str(tied_model), policy_lr=1e-3, critic_lr=3e-3, max_tokens=8)
    pairs = [Pair(game.prompt_ids(p), t) for p, t in zip(PROMPTS, TEACHER, strict=True)]
    course = play(game, pairs, warmup=40, steps=0, count=4, seed=0)
    assert sum(row["d_acc"] for row in course[-8:]) / 8 > 0.9
