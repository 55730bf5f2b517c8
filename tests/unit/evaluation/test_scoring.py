from pathlib import Path
from typing import Any

import pytest

from gad_ray.errors import DataError, ModelError
from gad_ray.evaluation.scoring import score_rows
from gad_ray.models.critic_export import load_critic
from tests.unit.builders import PROMPTS, TEACHER, critic_config, critic_learner, pair


@pytest.fixture(scope="module")
def critic_dir(tied_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("exports") / "critic"
    critic_learner(critic_config(tied_model)).export(directory)
    return directory


def scored(critic_dir: Path, *rows: dict[str, object]) -> list[dict[str, Any]]:
    return [dict(row) for row in score_rows(critic_dir, rows)]


def test_rows_score_as_in_training_and_name_the_critic(critic_dir: Path):
    critic = load_critic(critic_dir)
    wanted = critic.score([pair(PROMPTS[0], TEACHER[0]), pair(PROMPTS[0], "No.")], micro_batch_tokens=8192)
    found = scored(
        critic_dir,
        {"content": PROMPTS[0], "teacher_response": TEACHER[0], "id": 7},
        {"prompt": PROMPTS[0], "response": "No."},
        {"messages": [{"role": "user", "content": PROMPTS[0]}], "response": "No."},
    )
    assert [row["score"] for row in found] == [float(wanted[0]), float(wanted[1]), float(wanted[1])]
    assert {row["fingerprint"] for row in found} == {critic.fingerprint().digest}
    assert found[0]["id"] == 7


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"content": "Hi"}, "has neither"),
        ({"content": "Hi", "response": "a", "teacher_response": "b"}, "has response and teacher_response"),
        ({"content": "Hi", "response": 3}, "response is a int"),
        ({"content": "Hi", "response": "a\ud800"}, "lone surrogate"),
        ({"response": "a"}, "row 2"),
    ],
)
def test_a_row_that_cannot_be_scored_is_refused_by_its_number(
    critic_dir: Path, row: dict[str, object], message: str
):
    with pytest.raises(DataError, match=message) as caught:
        scored(critic_dir, {"content": "Hi", "response": "Hello"}, row)
    assert caught.value.where == "row 2"


def test_an_empty_response_has_a_score(critic_dir: Path):
    assert isinstance(scored(critic_dir, {"content": "Hi", "response": ""})[0]["score"], float)


def test_a_directory_without_a_critic_is_refused(tied_model: Path):
    with pytest.raises(ModelError, match="is not an exported critic"):
        scored(tied_model, {"content": "Hi", "response": "Hello"})
