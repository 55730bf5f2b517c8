from __future__ import annotations

import re

import pytest

from gad_ray.observability.metrics import METRICS, Kind, Unit, check_metrics, prometheus_name

# The names that boards of these runs already use.
ESTABLISHED = [
    "critic/d_acc",
    "critic/d_loss",
    "critic/ranking_loss",
    "critic/score_reg",
    "critic/score_diff",
    "critic/teacher_score_mean",
    "critic/teacher_score_std",
    "critic/teacher_score_min",
    "critic/teacher_score_max",
    "critic/student_score_mean",
    "critic/student_score_std",
    "critic/student_score_min",
    "critic/student_score_max",
    "critic/score_range",
    "critic/temperature",
    "critic/batch_mean",
    "critic/batch_std",
    "critic/grad_norm",
    "critic/grad_norm_before_clip",
    "critic/rewards/mean",
    "reward/discriminator_mean",
    "format/reward_avg",
    "actor/pg_loss",
    "actor/kl_loss",
    "actor/entropy",
    "actor/grad_norm",
    "actor/clipfrac",
    "actor/adv_std",
    "actor/adv_max",
    "actor/kl_share",
    "response_length/mean",
    "response_length/max",
    "response_length/clip_ratio",
    "rollout/mismatch_kl",
    "rollout/staleness",
    "timing_s/rollout",
    "timing_s/score",
    "timing_s/update_critic",
    "timing_s/update_actor",
    "timing_s/sync",
    "timing_s/step",
    "perf/rollout_tokens_per_s",
    "perf/train_tokens_per_s",
    "eval/d_acc",
    "eval/score_diff",
    "eval/auc",
]


def test_all_established_names_are_registered() -> None:
    assert set(ESTABLISHED) <= set(METRICS)


def test_every_prometheus_name_is_valid_and_stands_for_one_metric() -> None:
    names = [prometheus_name(name) for name in METRICS]
    assert all(re.fullmatch(r"gad_[a-z][a-z0-9_]*", name) for name in names)
    assert not [name for name in names if "__" in name]
    assert len(set(names)) == len(METRICS)
    # Ray derives the exposed name of a counter from the name without its suffix.
    assert len({name.removesuffix("_total") for name in names}) == len(METRICS)


def test_counters_alone_end_in_total_and_units_stand_last() -> None:
    for spec in METRICS.values():
        name = prometheus_name(spec.name)
        assert name.endswith("_total") == (spec.kind is Kind.COUNTER)
        if spec.unit in {Unit.SECONDS, Unit.BYTES, Unit.RATIO, Unit.TOKENS}:
            assert name.removesuffix("_total").endswith(f"_{spec.unit.value}")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("critic/d_acc", "gad_critic_d_acc_ratio"),
        ("critic/rewards/mean", "gad_critic_rewards_mean"),
        ("timing_s/update_critic", "gad_timing_update_critic_seconds"),
        ("perf/rollout_tokens_per_s", "gad_perf_rollout_tokens_per_second"),
        ("response_length/clip_ratio", "gad_response_length_clip_ratio"),
        ("response_length/mean", "gad_response_length_mean_tokens"),
        ("perf/memory_peak_bytes", "gad_perf_memory_peak_bytes"),
        ("rollout/failed", "gad_rollout_failed_total"),
        ("actor/kl_loss", "gad_actor_kl_loss"),
    ],
)
def test_prometheus_names_follow_its_conventions(name: str, expected: str) -> None:
    assert prometheus_name(name) == expected


def test_what_is_not_registered_is_refused() -> None:
    with pytest.raises(ValueError, match="'critic/d_ac' is not a registered metric"):
        check_metrics("warmup", {"critic/d_ac": 0.5})
    with pytest.raises(ValueError, match="'warm-up' is not a stage"):
        check_metrics("warm-up", {})
    with pytest.raises(ValueError, match=r"'rollout/failed' cannot count -1\.0 events"):
        check_metrics("warmup", {"rollout/failed": -1.0})


def test_ray_takes_the_descriptions_which_must_be_ascii() -> None:
    assert [spec.name for spec in METRICS.values() if not spec.description.isascii()] == []
