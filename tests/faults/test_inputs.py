"""Inputs that a run refuses before it starts Ray, by name, with exit code 2."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from gad_ray.cli import main
from tests.cluster import ray_environment
from tests.game import Game, make_rows, write_rows
from tests.tiny import make_tiny_model

NOBODY_LISTENS = "127.0.0.1:9"


@dataclass(frozen=True)
class Bad:
    """What is wrong, and what the error must name."""

    override: Callable[[Path], str]
    told: tuple[str, ...]


def _missing_file(place: Path) -> str:
    return f"data.train=[{place / 'nowhere.jsonl'}]"


def _rows_without_answers(place: Path) -> str:
    rows = [{"content": row["content"], "teacher_response": ""} for row in make_rows(10)]
    return f"data.train=[{write_rows(place / 'empty.jsonl', [*rows, *make_rows(10)])}]"


def _long_prompt(place: Path) -> str:
    rows = make_rows(12)
    rows[6]["content"] = "word " * 3000
    return f"data.train=[{write_rows(place / 'long.jsonl', rows)}]"


def _missing_model(place: Path) -> str:
    return f"policy.model.model={place / 'no-such-model'}"


def _no_chat_template(place: Path) -> str:
    return f"policy.model.model={make_tiny_model(place / 'base-model', chat=False)}"


def _reward_that_takes_no_text(_place: Path) -> str:
    return "reward.format=[{name: custom, function: 'math:pow'}]"


def _difficulty_out_of_reach(place: Path) -> str:
    path = write_rows(place / "graded.jsonl", [{**row, "difficulty": i} for i, row in enumerate(make_rows())])
    return f"data={{train: [{path}], heldout_prompts: 0, curriculum: {{name: difficulty, min: 50.0}}}}"


BAD = {
    "a data file that is not there": Bad(_missing_file, ("nowhere.jsonl",)),
    "half of the rows unusable": Bad(
        _rows_without_answers, ("10 of 20", "max_quarantined_fraction", "quarantine.jsonl")
    ),
    "a prompt that is too long": Bad(_long_prompt, ("long.jsonl:7", "data.max_prompt_tokens")),
    "a reward function that fails": Bad(
        _reward_that_takes_no_text, ("math:pow", "raised TypeError", "prompt 'row-")
    ),
    "a filter that leaves nothing": Bad(
        _difficulty_out_of_reach, ("data.curriculum.min = 50", "none of 40 rows", "from 0 to 39", "widen")
    ),
    "a model that is not there": Bad(_missing_model, ("no-such-model",)),
    "a policy without a chat template": Bad(_no_chat_template, ("base-model", "chat_template")),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_input_is_refused_by_name_before_ray_is_touched(
    what: str,
    game: Game,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = BAD[what]
    name = "bad-" + what.replace(" ", "-")
    # To look for Ray would be another error.
    monkeypatch.setenv("RAY_ADDRESS", NOBODY_LISTENS)
    with pytest.raises(SystemExit) as left:
        main(["train", str(game.config(name)), bad.override(tmp_path)])
    assert left.value.code == 2
    told = capsys.readouterr().err
    for words in bad.told:
        assert words in told
    assert "Traceback" not in told


def test_a_cluster_that_does_not_answer_is_named_at_once(game: Game) -> None:
    command = ["gad-ray", "train", str(game.config("no-cluster"))]
    environment = {**ray_environment(), "RAY_ADDRESS": NOBODY_LISTENS}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert f"no Ray cluster answers at RAY_ADDRESS={NOBODY_LISTENS}" in done.stderr
    assert "Traceback" not in done.stderr
