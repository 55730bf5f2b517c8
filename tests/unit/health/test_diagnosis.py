"""The verdict over a whole log."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gad_ray.config import RunConfig
from gad_ray.health import Diagnosis, diagnose
from gad_ray.health.history import History, Row

HEALTHY = {"critic/d_acc": 0.75, "critic/score_diff": 2.0, "critic/grad_norm": 1.0, "critic/temperature": 5.0}
SURE = {**HEALTHY, "critic/d_acc": 0.99}


def judge(config: RunConfig | None, *parts: tuple[str, dict[str, float], int]) -> Diagnosis:
    rows: list[Row] = []
    for stage, metrics, count in parts:
        rows += [Row(step=len(rows) + 1 + i, stage=stage, metrics=metrics) for i in range(count)]
    return diagnose(History(place="log", kind="run", rows=rows, config=config))


def rules(diagnosis: Diagnosis) -> Sequence[str]:
    return [item.finding.rule for item in diagnosis.fired]


def test_a_rule_that_fired_and_was_lifted_is_told_with_its_steps(config: RunConfig) -> None:
    diagnosis = judge(config, ("warmup", HEALTHY, 10), ("warmup", SURE, 10), ("warmup", HEALTHY, 10))
    (fired,) = diagnosis.fired
    # The mean of five is above 0.95 once all five are, and until one of them is not.
    assert (fired.steps[0], fired.steps[-1], len(fired.steps)) == (15, 20, 6)
    assert not fired.lasting
    assert diagnosis.verdict.startswith("healthy at the end")
    assert "critic-overconfident" in diagnosis.verdict


def test_a_rule_that_holds_at_the_end_decides_the_verdict(config: RunConfig) -> None:
    diagnosis = judge(config, ("warmup", HEALTHY, 10), ("warmup", SURE, 10))
    assert diagnosis.fired[0].lasting
    assert diagnosis.verdict == (
        "not healthy: critic-overconfident; begin with critic.loss.temperature.value=5.0"
    )


def test_the_worst_rule_goes_first_in_the_verdict(config: RunConfig) -> None:
    diagnosis = judge(config, ("warmup", {**SURE, "critic/grad_norm": 50.0}, 10))
    assert rules(diagnosis) == ["critic-overconfident", "gradient-explosion"]
    assert "worth nothing: gradient-explosion, critic-overconfident" in diagnosis.verdict


@pytest.mark.parametrize(
    ("stage", "metrics", "verdict"),
    [
        ("warmup", HEALTHY, "healthy warm-up, ready for the adversarial stage"),
        ("warmup", {**HEALTHY, "critic/d_acc": 0.93}, "healthy warm-up, ready for the adversarial stage"),
        ("warmup", {"critic/d_acc": 0.62, "critic/score_diff": 0.7}, "nothing wrong in the warm-up, but"),
        ("adversarial", HEALTHY, "healthy: no rule holds"),
        ("seqkd", {"actor/ce_loss": 2.0, "actor/pg_loss": 1.0}, "no rule applies to the stage 'seqkd'"),
    ],
)
def test_a_log_in_which_nothing_fired_gets_the_verdict_of_its_stage(
    config: RunConfig, stage: str, metrics: dict[str, float], verdict: str
) -> None:
    diagnosis = judge(config, (stage, metrics, 30))
    assert diagnosis.fired == ()
    assert diagnosis.verdict.startswith(verdict)


def test_each_stage_is_judged_to_its_end_however_short_it_was(config: RunConfig) -> None:
    diagnosis = judge(
        config, ("warmup", {**HEALTHY, "critic/grad_norm": 50.0}, 2), ("adversarial", HEALTHY, 30)
    )
    (fired,) = diagnosis.fired
    assert fired.steps == (1, 2)
    assert (fired.finding.judged_on, fired.finding.window) == (2, 3)
    assert not fired.lasting


def test_a_beginning_is_left_in_peace_at_the_end_of_a_log_too(config: RunConfig) -> None:
    untrained = {
        "critic/score_diff": 0.01,
        "critic/teacher_score_std": 0.01,
        "critic/student_score_std": 0.01,
    }
    assert judge(config, ("warmup", untrained, 4)).fired == ()


def test_a_policy_that_has_caught_up_is_a_success_and_not_a_blind_critic(config: RunConfig) -> None:
    rows = [
        Row(
            step=step,
            stage="adversarial",
            metrics={"critic/d_acc": 0.5, "critic/score_diff": 0.4, "eval/teacher_nll": 3.0 - 0.05 * step},
        )
        for step in range(1, 21)
    ]
    diagnosis = diagnose(History(place="log", kind="run", rows=rows, config=config))
    assert diagnosis.fired == ()
    assert any("what the game is for" in line for line in diagnosis.observations)
