"""A finished run's numbers obtained once more, from its files alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gad_ray.batch import Metrics
from gad_ray.cli import main
from gad_ray.critics import Critic, ValueHeadCritic
from gad_ray.errors import GadError
from gad_ray.evaluation.reevaluate import evaluate_again
from gad_ray.evaluation.replay import replay
from gad_ray.observability.records import find_records
from tests.game import Outcome

WARMUP, TOTAL = 4, 16
VERDICTS = {
    f"eval/{which}{name}{end}"
    for which in ("", "current_")
    for name in ("d_acc", "score_diff", "auc")
    for end in ("", "_low", "_high")
}


def logged(run: Outcome, step: int) -> Metrics:
    row = next(row for row in run.metrics if row["step"] == step)
    return {name: value for name, value in row.items() if name in VERDICTS}


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--json"])
    return int(left.value.code or 0), json.loads(capsys.readouterr().out)


def test_a_critic_that_learns_and_a_policy_that_does_are_told_apart(whole_run: Outcome) -> None:
    rows = {row["step"]: row for row in whole_run.metrics if "eval/d_acc" in row}
    # Until the game begins the policy is the one that gave the fixed answers.
    for step in (3, WARMUP):
        assert rows[step]["eval/current_score_diff"] == rows[step]["eval/score_diff"]
    assert rows[TOTAL]["eval/current_score_diff"] != rows[TOTAL]["eval/score_diff"]
    assert rows[TOTAL]["eval/d_acc_low"] <= rows[TOTAL]["eval/d_acc"] <= rows[TOTAL]["eval/d_acc_high"]
    fixed = {one.step: one.rows() for one in find_records(whole_run.root / "eval" / "fixed")}
    assert list(fixed) == sorted(rows)
    assert len({tuple(row.student_response for row in records) for records in fixed.values()}) == 1


@pytest.mark.parametrize("step", [None, WARMUP, TOTAL])
def test_an_evaluation_comes_again_number_by_number(whole_run: Outcome, step: int | None) -> None:
    found = evaluate_again(str(whole_run.root), output_dir="", step=step)
    wanted = logged(whole_run, TOTAL if step is None else step)
    assert set(wanted) == VERDICTS
    assert found.metrics == pytest.approx(wanted, abs=1e-5)
    assert found.step == (TOTAL if step is None else step)
    assert {name: found.logged[name] for name in VERDICTS} == wanted


def test_a_checkpoint_and_an_export_of_one_critic_give_the_same_numbers(whole_run: Outcome) -> None:
    paths = ("checkpoints/step-000004", "exports/critic-warmup")
    first, second = (evaluate_again(str(whole_run.root / path), output_dir="") for path in paths)
    assert {first.critic.kind, second.critic.kind} == {"checkpoint", "export"}
    assert first.fingerprint == second.fingerprint
    assert first.metrics == second.metrics


def test_an_evaluation_whose_critic_is_gone_is_refused_with_what_there_is(whole_run: Outcome) -> None:
    with pytest.raises(GadError, match="no critic that is still there"):
        evaluate_again(str(whole_run.root), output_dir="", step=6)
    with pytest.raises(GadError, match="take one of 3, 4, 6, 9, 12, 15, 16"):
        evaluate_again(str(whole_run.root), output_dir="", step=5)


@pytest.mark.parametrize("step", [None, WARMUP + 1, 15])
def test_recorded_scores_come_again_from_the_critic_that_gave_them(
    whole_run: Outcome, step: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [] if step is None else ["--step", str(step)]
    code, found = told(["replay", str(whole_run.root), *arguments], capsys)
    assert code == 0
    assert found["differing"] == []
    assert found["max_difference"] <= 1e-3
    assert found["step"] == (TOTAL if step is None else step)


def test_scores_of_another_critic_are_told_with_what_it_differs_in(
    whole_run: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    via = str(whole_run.root / "exports" / "critic-warmup")
    code, found = told(["replay", str(whole_run.root), "--step", str(TOTAL), "--via", via], capsys)
    assert code == 1
    assert found["differing"] == ["weights", "head"]
    assert found["max_difference"] > found["tolerance"] == 1e-3
    assert found["worst"]["recorded"] != found["worst"]["again"]


def elsewhere(directory: Path) -> Critic:
    """An exported critic in place of one behind an endpoint."""
    return replace(ValueHeadCritic.exported(directory, micro_batch_tokens=512), where="http://critic:8000")


def test_a_critic_elsewhere_gives_its_own_scores_again_and_not_anothers(whole_run: Outcome) -> None:
    exports = whole_run.root / "exports"
    # Without a step: records that are of this critic, which are older than the newest ones.
    mine = replay(str(whole_run.root), output_dir="", via=elsewhere(exports / "critic-warmup"))
    assert mine.same_scores
    assert (mine.critic, mine.differing) == ("http://critic:8000", ())
    assert mine.step < TOTAL
    other = replay(str(whole_run.root), output_dir="", via=elsewhere(exports / "critic"), step=mine.step)
    assert not other.same_scores
    assert other.differing == ("weights", "head")


def test_a_run_without_records_or_critics_says_what_to_set(whole_run: Outcome, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(whole_run.root / "config.yaml", bare)
    with pytest.raises(GadError, match="has kept no critic"):
        evaluate_again(str(bare), output_dir="")
    shutil.copytree(whole_run.root / "exports" / "critic", bare / "exports" / "critic")
    with pytest.raises(GadError, match=r"records\.every"):
        replay(str(bare), output_dir="")


def test_policies_are_compared_by_fresh_critics_and_by_one_that_is_there(
    whole_run: Outcome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    critic = whole_run.root / "exports" / "critic"
    with pytest.raises(SystemExit) as left:
        main(["compare", str(whole_run.root), "--critic", str(critic), "--out", str(tmp_path / "out")])
    assert not left.value.code
    assert "given critic's d_acc" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    name = whole_run.root.name
    assert list(found["policies"]) == list(found["verdicts"]) == ["base", name]
    for policy in found["policies"].values():
        assert 0.0 <= policy["fresh"]["auc"]["low"] <= policy["fresh"]["auc"]["high"] <= 1.0
        assert len(policy["answers"]) == policy["fresh"]["num_prompts"] > 0
    assert found["verdicts"]["base"] != found["verdicts"][name]
    assert found["policies"]["base"]["answers"] != found["policies"][name]["answers"]
