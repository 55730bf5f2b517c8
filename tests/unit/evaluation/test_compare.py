"""Pairwise verdicts of a judge behind a real HTTP endpoint, and what a comparison refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gad_ray.cli import main
from gad_ray.data.collect_settings import CollectSettings
from gad_ray.errors import ConfigError, GadError
from gad_ray.evaluation.compare import compare_runs
from gad_ray.evaluation.pairwise import Contest, hold_contest
from tests.endpoint import Reply, Teacher
from tests.unit.builders import prompt_batch

EXAMPLES = {example.id: example for example in prompt_batch().examples}
GOOD = {example_id: f"good {example_id}" for example_id in EXAMPLES}
BAD = {example_id: f"bad {example_id}" for example_id in EXAMPLES}


@pytest.fixture
def judge() -> Iterator[Teacher]:
    endpoint = Teacher()
    yield endpoint
    endpoint.close()


def contest(judge: Teacher, out: Path, sides: tuple[dict[str, str], dict[str, str]] = (GOOD, BAD)) -> Contest:
    out.mkdir(exist_ok=True)
    settings = CollectSettings(
        endpoint=judge.endpoint, model="judge", input=out / "x.jsonl", output=out / "x.parquet", concurrency=1
    )
    return hold_contest(("ours", "theirs"), sides, EXAMPLES, judge=settings, out=out)


def by_quality(question: str, attempt: int) -> Reply:
    return Reply(text="A" if "[Answer A]\ngood" in question else "B")


def test_the_better_policy_wins_whatever_the_order(judge: Teacher, tmp_path: Path):
    judge.script = by_quality
    found = contest(judge, tmp_path)
    assert (found.win_rate.value, found.win_rate.low, found.win_rate.high) == (1.0, 1.0, 1.0)
    assert (found.win_rate_shown_first, found.win_rate_shown_second) == (1.0, 1.0)
    assert (found.num_prompts, found.num_unreadable) == (4, 0)
    assert contest(judge, tmp_path / "other", (BAD, GOOD)).win_rate.value == 0.0
    # Both orders of every prompt, with the request before the answers.
    assert len(judge.requests) == 16
    assert all(question.index("[Request]") < question.index("[Answer A]") for question in judge.prompts())


def test_a_judge_that_goes_by_place_is_found_out(judge: Teacher, tmp_path: Path):
    judge.script = lambda question, attempt: Reply(text="A")
    found = contest(judge, tmp_path)
    assert (found.win_rate_shown_first, found.win_rate_shown_second) == (1.0, 0.0)
    assert found.win_rate.value == 0.5


def test_ties_count_half_and_prompts_without_a_verdict_not_at_all(judge: Teacher, tmp_path: Path):
    def script(question: str, attempt: int) -> Reply:
        if "good e0" in question:
            return Reply(text="I cannot say.")
        return Reply(text="**T**" if "good e1" in question else by_quality(question, attempt).text)

    judge.script = script
    found = contest(judge, tmp_path)
    assert (found.num_prompts, found.num_unreadable) == (3, 2)
    assert found.win_rate.value == pytest.approx((0.5 + 1.0 + 1.0) / 3)


def test_a_judge_without_any_verdict_is_an_error(judge: Teacher, tmp_path: Path):
    judge.script = lambda question, attempt: Reply(text="hm")
    with pytest.raises(ConfigError, match="no verdict that can be read"):
        contest(judge, tmp_path)


def test_a_broken_off_judging_asks_only_for_what_is_missing(judge: Teacher, tmp_path: Path):
    judge.script = lambda question, attempt: Reply(status=401 if "good e3" in question else 200, text="A")
    with pytest.raises(GadError, match="401"):
        contest(judge, tmp_path)
    assert len(judge.requests) == 7, "three prompts in both orders, and the one that was refused"
    judge.requests.clear()
    judge.script = by_quality
    assert contest(judge, tmp_path).num_prompts == 4
    assert {"good e3" in prompt for prompt in judge.prompts()} == {True}
    assert len(judge.requests) == 2


def test_a_run_that_has_no_policy_yet_is_named(tmp_path: Path):
    run = tmp_path / "young"
    run.mkdir()
    (run / "config.yaml").write_text("name: young\n")
    with pytest.raises(SystemExit) as left:
        main(["compare", str(run), "--out", str(tmp_path / "out")])
    assert left.value.code == 2


def test_two_runs_of_one_name_are_refused(tmp_path: Path):
    for place in ("a", "b"):
        (tmp_path / place / "run").mkdir(parents=True)
        (tmp_path / place / "run" / "config.yaml").write_text("name: run\n")
    targets = [str(tmp_path / place / "run") for place in ("a", "b")]
    with pytest.raises(ConfigError, match="two of the policies are called 'run'"):
        compare_runs(targets, output_dir="", out=tmp_path / "out")


def test_a_judge_needs_its_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        main(["compare", "x", "--judge", "http://127.0.0.1:9"])
    assert left.value.code == 2
    assert "--judge-model" in capsys.readouterr().err
