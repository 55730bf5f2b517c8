from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from gad_ray.config import RunConfig, load_config
from gad_ray.config.load import validate
from gad_ray.health import RULES, HealthMonitor, Rule, RunFinding
from gad_ray.health.conditions import signals_of
from gad_ray.health.facts import NO_FACTS, RunFacts, SamplingFacts, facts_of
from gad_ray.health.signals import SOURCES, Signal
from gad_ray.observability.metrics import METRICS, STAGES

# Two real runs whose verdict is known.
OVERCONFIDENT = {
    "critic/d_acc": 0.9355,
    "critic/score_diff": 9.81,
    "critic/teacher_score_mean": 5.51,
    "critic/student_score_mean": -4.30,
    "critic/student_score_min": -14.0,
    "critic/student_score_max": 8.25,
    "critic/teacher_score_min": -8.44,
    "critic/teacher_score_max": 19.0,
    "critic/temperature": 2.0,
    "critic/grad_norm": 3.458,
    "critic/rewards/mean": -4.30,
    "reward/discriminator_mean": -4.30,
}
HEALTHY = {
    "critic/d_acc": 0.9473,
    "critic/score_diff": 1.81,
    "critic/teacher_score_mean": 1.81,
    "critic/student_score_mean": -1.33,
    "critic/temperature": 5.0,
    "critic/grad_norm": 0.398,
    "critic/ranking_loss": 0.530,
    "critic/rewards/mean": -1.88,
    "reward/discriminator_mean": -1.88,
}


def observe(
    monitor: HealthMonitor, metrics: Mapping[str, float], *, count: int, first: int = 1, stage: str = "warmup"
) -> list[RunFinding]:
    return [
        finding
        for step in range(first, first + count)
        for finding in monitor.observe(step=step, stage=stage, metrics=metrics)
    ]


def test_an_overconfident_run_is_told_so_and_its_gradient_is_left_in_peace(config: RunConfig) -> None:
    findings = observe(HealthMonitor(config), OVERCONFIDENT, count=49)
    assert sorted(finding.rule for finding in findings) == [
        "critic-overconfident",
        "extreme-scores",
        "loss-saturated",
        "scores-too-far-apart",
    ]


def test_a_healthy_warm_up_is_left_in_peace(config: RunConfig) -> None:
    monitor = HealthMonitor(config)
    for step in range(1, 254):
        fresh = {"critic/score_diff": 1.81 + 0.05 * (-1) ** step}  # of other samples in every step
        assert observe(monitor, HEALTHY | fresh, count=1, first=step) == []
    assert monitor.active == frozenset()


def test_a_score_difference_that_never_changes_is_no_critic_that_learns(config: RunConfig) -> None:
    findings = observe(HealthMonitor(config), HEALTHY, count=60)
    assert [(finding.rule, finding.step) for finding in findings] == [("scores-stand-still", 50)]


def test_a_finding_says_what_was_measured_and_which_setting_mends_it(config: RunConfig) -> None:
    findings = {f.rule: f for f in observe(HealthMonitor(config), OVERCONFIDENT, count=5)}
    saturated = findings["loss-saturated"]
    assert saturated.overrides == ("critic.loss.temperature.value=5.0",)
    assert saturated.step == 5
    assert saturated.stage == "warmup"
    assert dict(saturated.values) == {"mean sigmoid(d/τ)": pytest.approx(0.99264, abs=1e-5)}
    assert saturated.text.startswith("mean sigmoid(d/τ) 0.993: The sigmoid of the ranking loss")
    assert saturated.text.endswith("Try critic.loss.temperature.value=5.0.")
    assert findings["critic-overconfident"].overrides == (
        "critic.loss.temperature.value=5.0",
        "critic.loss.score_reg.threshold=3.0",
        "critic.loss.score_reg.weight=0.01",
        "critic.loss.batch_norm=true",
    )


def test_advice_that_is_followed_already_is_not_given_again(raw_config: dict[str, Any]) -> None:
    raw_config["critic"]["loss"] = {
        "temperature": {"name": "fixed", "value": 5.0},
        "score_reg": {"threshold": 3.0, "weight": 0.01},
        "batch_norm": True,
    }
    findings = observe(HealthMonitor(validate(raw_config, where="test")), OVERCONFIDENT, count=5)
    overconfident = next(f for f in findings if f.rule == "critic-overconfident")
    assert overconfident.overrides == (
        "critic.loss.temperature.value=7.0",
        "critic.loss.score_reg.weight=0.03",
    )


def test_every_advice_is_an_override_that_the_configuration_takes(
    raw_config: dict[str, Any], config: RunConfig, tmp_path: Path
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(raw_config))
    overrides = {o for rule in RULES for item in rule.advice if (o := item.override(config)) is not None}
    assert len(overrides) >= 8
    for override in overrides:
        assert load_config(str(file), [override]) != config, override


@pytest.mark.parametrize(
    ("before", "raised", "lowered"), [(0.5, 2.0, 0.3), (2.0, 5.0, 1.2), (5.0, 7.0, 3.0), (8.0, 12.0, 3.0)]
)
def test_the_temperature_moves_along_the_steps_that_worked(
    raw_config: dict[str, Any], before: float, raised: float, lowered: float
) -> None:
    raw_config["critic"]["loss"]["temperature"]["value"] = before
    config = validate(raw_config, where="test")
    overconfident = observe(HealthMonitor(config), {"critic/d_acc": 0.99}, count=5)
    blind = observe(HealthMonitor(config), {"critic/d_acc": 0.5}, count=5, stage="adversarial")
    assert overconfident[0].overrides[0] == f"critic.loss.temperature.value={raised}"
    assert blind[0].overrides[0] == f"critic.loss.temperature.value={lowered}"


def test_a_rule_waits_for_its_window(config: RunConfig) -> None:
    monitor = HealthMonitor(config)
    assert observe(monitor, OVERCONFIDENT, count=4) == []
    assert observe(monitor, OVERCONFIDENT, count=1, first=5) != []


def test_a_rule_is_reported_again_only_after_it_stopped(config: RunConfig) -> None:
    monitor = HealthMonitor(config)
    high, low = {"critic/d_acc": 0.99}, {"critic/d_acc": 0.75}
    assert [f.step for f in observe(monitor, high, count=20)] == [5]
    assert monitor.active == {"critic-overconfident"}
    assert observe(monitor, low, count=10, first=21) == []
    assert monitor.active == frozenset()
    # 0.75, 0.99, 0.99, 0.99, 0.99 has a mean of 0.942: the fifth high step begins it anew.
    assert [f.step for f in observe(monitor, high, count=10, first=31)] == [35]


def test_a_rule_that_goes_on_across_the_stages_is_reported_once(config: RunConfig) -> None:
    monitor = HealthMonitor(config)
    high = {"critic/d_acc": 0.99}
    assert len(observe(monitor, high, count=10)) == 1
    assert observe(monitor, high, count=10, first=11, stage="adversarial") == []
    assert monitor.active == {"critic-overconfident"}


def test_a_window_does_not_reach_back_into_the_warm_up(config: RunConfig) -> None:
    monitor = HealthMonitor(config)
    observe(monitor, {"critic/d_acc": 0.5}, count=30)
    assert observe(monitor, {"critic/d_acc": 0.5}, count=4, first=31, stage="adversarial") == []
    findings = observe(monitor, {"critic/d_acc": 0.5}, count=1, first=35, stage="adversarial")
    assert [f.rule for f in findings] == ["critic-blind"]


def test_values_that_are_not_finite_are_left_out_of_the_window(config: RunConfig) -> None:
    monitor = HealthMonitor(config)
    (found,) = observe(monitor, {"critic/d_acc": math.nan}, count=10)
    assert found.rule == "not-a-number"
    assert observe(monitor, {"critic/d_acc": 0.99}, count=4, first=11) == []
    (found,) = observe(monitor, {"critic/d_acc": 0.99}, count=1, first=15)
    assert (found.rule, found.step, found.numbers) == ("critic-overconfident", 15, (11, 15))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_is_critical_and_told_with_its_first_step(
    config: RunConfig, value: float
) -> None:
    monitor = HealthMonitor(config)
    assert observe(monitor, {"actor/kl_loss": 0.01, "actor/entropy": 1.0}, count=39) == []
    broken = {"actor/kl_loss": value, "actor/entropy": 1.0}
    (found,) = observe(monitor, broken, count=20, first=40)
    assert (found.rule, found.severity, found.step) == ("not-a-number", "critical", 40)
    assert "actor/kl_loss (since step 40)" in found.meaning
    assert "entropy" not in found.meaning
    assert monitor.active == {"not-a-number"}
    observe(monitor, {"actor/kl_loss": 0.01, "actor/entropy": 1.0}, count=1, first=60)
    assert monitor.active == frozenset()


def test_a_verdict_is_not_repeated_over_steps_that_hold_no_number(config: RunConfig) -> None:
    monitor = HealthMonitor(config)
    observe(monitor, {"critic/d_acc": 0.99, "actor/entropy": 1.0}, count=10)
    assert monitor.active == {"critic-overconfident"}
    observe(monitor, {"critic/d_acc": math.nan, "actor/entropy": 1.0}, count=1, first=11)
    assert monitor.active == {"not-a-number"}


def test_a_metric_that_comes_every_few_steps_is_judged_between_them(config: RunConfig) -> None:
    monitor = HealthMonitor(config)
    for step in range(1, 41):
        told = {"critic/d_acc": 0.99} if step % 4 == 0 else {}
        observe(monitor, {"actor/entropy": 1.0, **told}, count=1, first=step)
    observe(monitor, {"actor/entropy": 1.0}, count=2, first=41)
    assert monitor.active == {"critic-overconfident"}


def test_a_metric_that_is_not_told_any_more_is_missed_with_its_first_step(config: RunConfig) -> None:
    monitor = HealthMonitor(config)
    observe(monitor, {"critic/d_acc": 0.8, "actor/entropy": 1.0}, count=10)
    (found,) = observe(monitor, {"actor/entropy": 1.0}, count=5, first=11)
    assert (found.rule, found.step) == ("metrics-lost", 13)
    assert "critic/d_acc (since step 11)" in found.meaning
    # A stage has metrics of its own: none is missed for having belonged to the other.
    assert observe(monitor, {"critic/d_acc": 0.8}, count=5, first=16, stage="adversarial") == []


def test_a_metric_that_only_some_steps_have_is_not_missed(config: RunConfig) -> None:
    monitor = HealthMonitor(config)
    for step in range(1, 60):
        told = {"eval/d_acc": 0.8} if step % 7 == 0 else {}
        assert observe(monitor, {"actor/entropy": 1.0, **told}, count=1, first=step) == []


@pytest.mark.parametrize(
    ("rule", "stage", "metrics"),
    [
        ("critic-blind", "adversarial", {"critic/d_acc": 0.55}),
        ("scores-indistinct", "warmup", {"critic/score_diff": 0.3}),
        (
            "score-collapse",
            "adversarial",
            {"critic/teacher_score_std": 0.05, "critic/student_score_std": 0.01},
        ),
        (
            "score-collapse",
            "warmup",
            {
                "critic/d_acc": 0.52,
                "critic/score_diff": 1.0,
                "critic/teacher_score_mean": 0.04,
                "critic/student_score_mean": 0.01,
            },
        ),
        ("gradient-explosion", "warmup", {"critic/grad_norm_before_clip": 12.0, "critic/grad_norm": 1.0}),
        ("gradient-vanished", "warmup", {"critic/grad_norm_before_clip": 0.05}),
        ("discriminator-reward-out-of-range", "adversarial", {"reward/discriminator_mean": 5.5}),
        ("discriminator-reward-out-of-range", "adversarial", {"reward/discriminator_mean": -10.5}),
        ("length-shortcut", "warmup", {"critic/score_length_corr": -0.6}),
        (
            "length-shortcut",
            "adversarial",
            {"response_length/mean": 160.0, "response_length/teacher_mean": 100.0, "actor/pg_loss": 0.1},
        ),
        ("scores-rounded", "warmup", {"critic/rounded_scores": 1.0}),
        ("identical-text-differs", "adversarial", {"eval/identical_text_diff": 0.5}),
        ("fingerprint-differs", "warmup", {"critic/same_as_evaluated": 0.0}),
        ("rollout-trainer-mismatch", "adversarial", {"rollout/mismatch_abs": 0.06}),
        ("rollout-trainer-mismatch", "adversarial", {"rollout/mismatch_kl": 0.06}),
    ],
)
def test_each_unhealthy_figure_is_found_by_its_rule_alone(
    config: RunConfig, rule: str, stage: str, metrics: Mapping[str, float]
) -> None:
    found = {finding.rule for finding in observe(HealthMonitor(config), metrics, count=40, stage=stage)}
    assert found == {rule}


def test_a_new_head_is_given_time_to_learn(config: RunConfig) -> None:
    untrained = {
        "critic/score_diff": 0.01,
        "critic/teacher_score_std": 0.02,
        "critic/student_score_std": 0.02,
    }
    monitor = HealthMonitor(config)
    assert observe(monitor, untrained, count=20) == []
    found = {finding.rule for finding in observe(monitor, untrained, count=10, first=21)}
    assert found == {"scores-indistinct", "score-collapse"}


def test_the_gap_to_the_fixed_set_is_judged_by_its_latest_scoring(config: RunConfig) -> None:
    monitor = HealthMonitor(config)
    fresh = {"critic/d_acc": 0.768}
    assert observe(monitor, fresh, count=10) == []
    findings = observe(monitor, {**fresh, "eval/d_acc": 0.4575}, count=1, first=11)
    assert [f.rule for f in findings] == ["train-eval-gap"]
    assert findings[0].overrides[0] == "critic.updates_per_step=2"
    observe(monitor, {**fresh, "eval/d_acc": 0.75}, count=1, first=12)
    assert monitor.active == frozenset()


def test_a_swinging_ranking_loss_is_found_and_a_steady_one_is_not(config: RunConfig) -> None:
    swinging, steady = HealthMonitor(config), HealthMonitor(config)
    found: list[str] = []
    for step in range(1, 41):
        found += [
            f.rule
            for f in swinging.observe(
                step=step, stage="warmup", metrics={"critic/ranking_loss": 1.0 if step % 2 else 0.2}
            )
        ]
        assert not steady.observe(
            step=step, stage="warmup", metrics={"critic/ranking_loss": 0.7 if step % 2 else 0.5}
        )
    assert found == ["ranking-loss-oscillates"]


def test_a_swinging_loss_is_not_judged_on_a_handful_of_steps(config: RunConfig) -> None:
    monitor = HealthMonitor(config)
    for step in range(1, 9):
        monitor.observe(step=step, stage="warmup", metrics={"critic/ranking_loss": 1.0 if step % 2 else 0.2})
    assert monitor.conclude() == []


STILL = {"actor/pg_loss": 2e-4, "actor/adv_std": 0.006, "actor/kl_loss": 0.08, "actor/kl_share": 0.9}


def test_a_policy_that_stands_still_is_judged_over_an_epoch(config: RunConfig) -> None:
    monitor = HealthMonitor(config, facts=RunFacts(steps_per_epoch=30, policy_lr=1e-6, warm_start_lr=1e-5))
    found = {f.rule: f for f in observe(monitor, STILL, count=30, stage="adversarial")}
    assert {name: f.step for name, f in found.items()} == {
        "advantages-squeezed": 5,
        "kl-drowns-the-loss": 10,
        "policy-stands-still": 30,
    }


def test_a_small_rate_is_no_fault_while_the_policy_moves(config: RunConfig) -> None:
    facts = RunFacts(policy_lr=5e-6, warm_start_lr=1e-4)
    moving = {"actor/pg_loss": 0.01, "actor/adv_std": 0.9, "actor/kl_loss": 0.02}
    assert observe(HealthMonitor(config, facts=facts), moving, count=40, stage="adversarial") == []
    stuck = {**moving, "actor/kl_loss": 0.001}
    found = observe(HealthMonitor(config, facts=facts), stuck, count=40, stage="adversarial")
    assert [(f.rule, f.step) for f in found] == [("lr-too-small", 20)]
    assert found[0].overrides == ("policy.optimizer.lr=1.0e-05",)


def test_groups_without_spread_are_the_cause_and_not_squeezed_advantages(config: RunConfig) -> None:
    metrics = {"actor/adv_std": 0.0, "actor/zero_spread_groups": 1.0}
    found = observe(HealthMonitor(config), metrics, count=40, stage="adversarial")
    assert [(f.rule, f.step) for f in found] == [("no-spread-in-groups", 10)]
    assert found[0].overrides == (
        "rollout.temperature=1.0",
        "data.curriculum={name: spread_first, epochs: 1.0}",
        "policy.advantage.zero_spread=drop",
    )


@pytest.mark.parametrize(
    ("quality", "expected"),
    [("eval/teacher_nll", {"reward-hacking"}), ("eval/distinct_1", set[str]())],
)
def test_a_reward_that_rises_while_quality_falls_is_hacked(
    config: RunConfig, quality: str, expected: set[str]
) -> None:
    monitor = HealthMonitor(config)
    found: set[str] = set()
    for step in range(1, 41):
        metrics = {"critic/rewards/mean": 0.1 * step}
        if step % 10 == 0:
            metrics[quality] = 2.0 + 0.06 * step
        found |= {f.rule for f in monitor.observe(step=step, stage="adversarial", metrics=metrics)}
    assert found == expected


def test_a_blind_critic_is_no_fault_while_the_teachers_text_becomes_likelier(config: RunConfig) -> None:
    monitor = HealthMonitor(config)
    found: list[RunFinding] = []
    for step in range(1, 31):
        metrics = {"critic/d_acc": 0.52}
        if step in (4, 5, 20):
            metrics["eval/teacher_nll"] = {4: 2.0, 5: 1.5, 20: 2.1}[step]
        found += monitor.observe(step=step, stage="adversarial", metrics=metrics)
    # What fell has risen again.
    assert [(f.rule, f.step) for f in found] == [("critic-blind", 20)]


def test_a_symptom_gives_way_to_its_cause_and_comes_back_without_it(config: RunConfig) -> None:
    monitor = HealthMonitor(config, facts=NO_FACTS)
    apart = {"critic/score_diff": 9.0, "response_length/teacher_mean": 40.0}
    silent = {**apart, "response_length/mean": 1.0}
    assert {f.rule for f in observe(monitor, apart, count=5, stage="adversarial")} == {"scores-too-far-apart"}
    observe(monitor, silent, count=10, first=6, stage="adversarial")
    assert monitor.active == {"length-collapse"}
    talking = {**apart, "response_length/mean": 40.0}
    found = {f.rule for f in observe(monitor, talking, count=10, first=16, stage="adversarial")}
    assert found == {"scores-too-far-apart"}


def test_a_step_that_takes_far_longer_than_those_before_is_a_stall(config: RunConfig) -> None:
    monitor = HealthMonitor(config)
    assert observe(monitor, {"timing_s/step": 20.0}, count=10) == []
    # An evaluation within the step is not held against it.
    slow = {"timing_s/step": 240.0, "timing_s/eval": 200.0}
    assert observe(monitor, slow, count=1, first=11) == []
    assert [f.rule for f in observe(monitor, {"timing_s/step": 120.0}, count=1, first=12)] == ["stalled"]
    assert monitor.step_time_ratio == pytest.approx(6.0)


def test_a_wait_is_judged_while_it_lasts_and_leaves_nothing_behind(config: RunConfig) -> None:
    monitor = HealthMonitor(config)
    assert monitor.waiting(1e6) == []
    observe(monitor, {"timing_s/step": 20.0}, count=10)
    assert monitor.waiting(90.0) == []
    assert [f.rule for f in monitor.waiting(120.0)] == ["stalled"]
    assert monitor.active == frozenset()


def test_short_steps_do_not_make_every_pause_a_stall(config: RunConfig) -> None:
    monitor = HealthMonitor(config)
    observe(monitor, {"timing_s/step": 0.5}, count=10)
    assert monitor.waiting(30.0) == []


def test_a_window_that_is_never_filled_is_judged_on_what_there_is_and_said_so(config: RunConfig) -> None:
    monitor = HealthMonitor(config)
    observe(monitor, OVERCONFIDENT, count=2)
    findings = monitor.conclude()
    saturated = next(f for f in findings if f.rule == "loss-saturated")
    assert (saturated.window, saturated.judged_on) == (5, 2)
    assert saturated.evidence == "mean sigmoid(d/τ) 0.993 (judged on 2 of 5 steps)"


def test_what_was_judged_on_a_full_window_is_not_judged_on_less(config: RunConfig) -> None:
    monitor = HealthMonitor(config)
    observe(monitor, HEALTHY, count=30)
    observe(monitor, OVERCONFIDENT, count=1, first=31)
    before = monitor.active
    assert all(f.window > 20 for f in monitor.conclude())
    assert before <= monitor.active


def test_findings_speak_the_language_asked_for(config: RunConfig) -> None:
    monitor = HealthMonitor(config, language="zh")
    findings = {f.rule: f for f in observe(monitor, OVERCONFIDENT, count=5)}
    assert findings["loss-saturated"].text == (
        "平均 sigmoid(d/τ) 0.993: 排序损失的 sigmoid 已处于饱和端，损失几乎没有梯度。"
        " 可尝试 critic.loss.temperature.value=5.0。"
    )


def test_the_largest_score_is_told_by_the_difference_where_nothing_else_does(config: RunConfig) -> None:
    findings = observe(HealthMonitor(config), {"critic/score_diff": 117.0}, count=5)
    extreme = next(f for f in findings if f.rule == "extreme-scores")
    assert dict(extreme.values) == {Signal.SCORE_SIZE_MAX.value: 58.5}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_is_well_formed(rule: Rule) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.name)
    assert rule.stages
    assert set(rule.stages) <= set(STAGES)
    assert rule.steps(None) >= rule.shortest >= 1
    assert set(signals_of(rule.condition)) <= set(SOURCES)
    assert set(rule.yields_to) <= {other.name for other in RULES}


def test_rule_names_are_unique() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_the_signals_read_registered_metrics_only() -> None:
    class Asked(dict[str, float]):
        """Notes every metric that a signal asks for."""

        def __init__(self) -> None:
            super().__init__()
            self.names: set[str] = set()

        def __contains__(self, name: object) -> bool:
            self.names.add(str(name))
            return False

        def get(self, name: str, default: float | None = None) -> float | None:  # type: ignore[override]
            self.names.add(name)
            return default

    asked = Asked()
    for source in SOURCES.values():
        source.read(asked, NO_FACTS)
    assert len(asked.names) > 10
    assert asked.names <= set(METRICS)


def test_a_skipped_step_of_either_model_is_told_for_as_long_as_it_is_in_the_window(config: RunConfig) -> None:
    monitor = HealthMonitor(config)
    sound = {"critic/skipped_steps": 0.0, "actor/skipped_steps": 0.0}
    assert observe(monitor, sound, count=10) == []
    found = observe(monitor, {**sound, "actor/skipped_steps": 1.0}, count=1, first=11)
    assert [finding.rule for finding in found] == ["steps-skipped"]
    observe(monitor, sound, count=4, first=12)
    assert monitor.active == {"steps-skipped"}
    observe(monitor, sound, count=1, first=16)
    assert monitor.active == frozenset()


def test_what_the_run_finds_of_its_own_evaluation_counts_more_than_what_was_assumed(
    config: RunConfig,
) -> None:
    facts = RunFacts(training_fingerprint="a", evaluation_fingerprint="a", identical_text_difference=0.0)
    monitor = HealthMonitor(config, facts=facts)
    assert observe(monitor, {"critic/d_acc": 0.8}, count=1) == []
    told = {"critic/same_as_evaluated": 0.0, "eval/identical_text_diff": 0.5}
    assert {finding.rule for finding in observe(monitor, told, count=1, first=2)} == {
        "fingerprint-differs",
        "identical-text-differs",
    }


def test_sampling_that_turns_out_to_differ_is_told_with_the_setting(config: RunConfig) -> None:
    monitor = HealthMonitor(config, facts=facts_of(config))
    assert observe(monitor, {"critic/d_acc": 0.8}, count=1) == []
    drawn = SamplingFacts(temperature=0.6, top_p=1.0, repetition_penalty=1.0, max_tokens=1536)
    monitor.evaluated_with(drawn)
    (finding,) = observe(monitor, {"critic/d_acc": 0.8}, count=1, first=2)
    assert finding.rule == "sampling-differs"
    assert "temperature 0.8 in training, 0.6 in the evaluation" in finding.meaning
    assert finding.overrides == ("rollout.temperature=0.6",)


def test_a_policy_without_a_reference_is_not_taken_for_one_that_stays_at_it(config: RunConfig) -> None:
    facts = RunFacts(policy_lr=1e-6, warm_start_lr=1e-4)
    near, unknown = HealthMonitor(config, facts=facts), HealthMonitor(config, facts=facts)
    metrics = {"actor/kl_loss": 0.0, "actor/kl_coef": 0.001}
    found = observe(near, metrics, count=20, stage="adversarial")
    assert [finding.rule for finding in found] == ["lr-too-small"]
    assert observe(unknown, {**metrics, "actor/kl_coef": 0.0}, count=40, stage="adversarial") == []


def test_a_correlation_with_length_that_changes_its_sign_is_chance_and_no_shortcut(config: RunConfig) -> None:
    monitor = HealthMonitor(config)
    for step in range(1, 41):
        assert not monitor.observe(
            step=step, stage="warmup", metrics={"critic/score_length_corr": 0.7 if step % 2 else -0.7}
        )


@pytest.mark.parametrize(
    ("value", "first"), [(0.05, "critic.loss.temperature.value=2.0"), (2.0, "critic.optimizer.lr=")]
)
def test_a_gradient_that_a_low_temperature_multiplies_is_answered_by_the_temperature(
    raw_config: dict[str, Any], value: float, first: str
) -> None:
    raw_config["critic"]["loss"]["temperature"]["value"] = value
    monitor = HealthMonitor(validate(raw_config, where="test"))
    (finding,) = observe(monitor, {"critic/grad_norm_before_clip": 70.0}, count=3)
    assert finding.rule == "gradient-explosion"
    assert finding.overrides[0].startswith(first)


@pytest.mark.parametrize(("high", "told"), [(0.9, []), (0.7, ["train-eval-gap"])])
def test_a_gap_within_the_interval_of_a_small_set_is_chance(
    config: RunConfig, high: float, told: list[str]
) -> None:
    metrics = {"critic/d_acc": 0.83, "eval/d_acc": 0.62, "eval/d_acc_high": high}
    assert [finding.rule for finding in observe(HealthMonitor(config), metrics, count=5)] == told


def test_a_policy_that_runs_away_is_found_by_its_distance_and_not_by_a_single_token(
    config: RunConfig,
) -> None:
    away, spiked = HealthMonitor(config), HealthMonitor(config)
    found: list[str] = []
    for step in range(1, 11):
        far = {"actor/kl_loss": 0.2 * step, "actor/kl_coef": 0.001}
        found += [f"{f.rule} {step}" for f in away.observe(step=step, stage="adversarial", metrics=far)]
        once = {"actor/kl_loss": 500.0 if step == 5 else 0.05, "actor/kl_coef": 0.001}
        assert not spiked.observe(step=step, stage="adversarial", metrics=once)
    # 1.2, 1.4 and 1.6 are the first three above 1.
    assert found == ["policy-runs-away 8"]


@pytest.mark.parametrize(("teacher_follows", "told"), [(True, set[str]()), (False, {"reward-hacking"})])
def test_scores_that_drift_on_both_sides_are_the_critics_and_no_hack(
    config: RunConfig, teacher_follows: bool, told: set[str]
) -> None:
    monitor = HealthMonitor(config, rules=[rule for rule in RULES if rule.name == "reward-hacking"])
    found: set[str] = set()
    for step in range(1, 31):
        drift = 0.1 * step
        metrics = {
            "critic/rewards/mean": drift,
            "critic/score_diff": 1.0 if teacher_follows else 3.0 - drift,
            "eval/reward": -drift,
            "eval/teacher_score_mean": 1.0 - drift if teacher_follows else 1.0,
        }
        found |= {f.rule for f in monitor.observe(step=step, stage="adversarial", metrics=metrics)}
    assert found == told


def test_the_length_of_a_policy_that_follows_no_critic_yet_is_its_own(config: RunConfig) -> None:
    long = {"response_length/mean": 160.0, "response_length/teacher_mean": 100.0}
    assert observe(HealthMonitor(config), long, count=20) == []


def test_what_a_run_logs_of_itself_is_not_missed_after_it_was_read_back(config: RunConfig) -> None:
    monitor = HealthMonitor(config)
    told = {"actor/entropy": 1.0}
    observe(monitor, told | {"perf/memory_bytes": 1.0, "health/findings": 0.0}, count=8)
    assert observe(monitor, told, count=8, first=9) == []
