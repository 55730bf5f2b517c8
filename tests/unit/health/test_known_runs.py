"""Real runs whose verdict is known: their figures, and nothing else, get it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gad_ray.health import Diagnosis, diagnose
from gad_ray.health.phrases import say
from gad_ray.health.reading import read_history
from gad_ray.health.texts import LANGUAGES, Language

FIXTURES = Path(__file__).parent / "fixtures"


def judge(run: str, language: Language = "en") -> Diagnosis:
    return diagnose(read_history(str(FIXTURES / f"run-{run}.jsonl")), language=language)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("run", "rules"),
    [
        ("a", {"critic-overconfident", "loss-saturated", "scores-too-far-apart", "extreme-scores"}),
        ("b", set[str]()),
        ("c", {"train-eval-gap", "sampling-differs", "fingerprint-unknown", "evaluation-near-collapse"}),
        ("d", {"policy-stands-still", "advantages-squeezed", "lr-too-small", "kl-drowns-the-loss"}),
        ("e", {"extreme-scores", "reward-hacking", "length-collapse"}),
    ],
)
def test_a_known_run_gets_its_verdict_and_no_other(run: str, rules: set[str], language: Language) -> None:
    diagnosis = judge(run, language)
    assert {item.finding.rule for item in diagnosis.fired} == rules
    assert all(item.lasting for item in diagnosis.fired)


def test_the_overconfident_run_has_a_healthy_gradient_and_sound_masks() -> None:
    diagnosis = judge("a")
    assert say("gradient-healthy", "en") in diagnosis.observations
    assert say("identical-text-alike", "en") in diagnosis.observations
    saturated = next(item.finding for item in diagnosis.fired if item.finding.rule == "loss-saturated")
    assert saturated.evidence == "mean sigmoid(d/τ) 0.993 (judged on 1 of 5 steps)"
    assert saturated.overrides == ("critic.loss.temperature.value=5.0",)
    assert diagnosis.verdict.endswith("begin with critic.loss.temperature.value=5.0")


def test_the_healthy_warm_up_is_called_ready_and_its_negative_reward_is_explained() -> None:
    diagnosis = judge("b")
    assert diagnosis.verdict == "healthy warm-up, ready for the adversarial stage"
    assert say("negative-reward-explained", "en") in diagnosis.observations
    assert say("above-target-band", "en") in diagnosis.observations
    assert judge("b", "zh").verdict == "预热健康，可以进入对抗阶段"


def test_the_critics_check_names_what_was_sampled_differently() -> None:
    sampling = next(i.finding for i in judge("c").fired if i.finding.rule == "sampling-differs")
    assert "temperature 0.6 in training, 0.8 in the evaluation" in sampling.meaning
    assert sampling.values["temperature in training"] == 0.6
    assert sampling.values["temperature in the evaluation"] == 0.8
    assert sampling.overrides == ("rollout.temperature=0.8",)


def test_the_policy_that_stands_still_is_told_its_causes_and_what_rank_advantages_are() -> None:
    found = {item.finding.rule: item.finding for item in judge("d").fired}
    squeezed = found["advantages-squeezed"]
    assert "near 0.6 (rank)" in squeezed.meaning
    assert "only a scaling after they were made explains it" in squeezed.meaning
    assert squeezed.overrides == ("policy.advantage.name=grpo",)
    # 0.15 × 0.074 beside 0.00092 of loss is 92 %. The loss of fresh samples is small whatever drives it: beside the
    # advantages' deviation of 0.0062 it is 64 %, and a little more over the three epochs.
    assert found["kl-drowns-the-loss"].values["KL term's share of the gradient"] == pytest.approx(
        0.665, abs=1e-3
    )
    assert found["kl-drowns-the-loss"].overrides == ("policy.kl.coefficient=0.05",)
    assert found["lr-too-small"].overrides == ("policy.optimizer.lr=5.0e-05",)


def test_silence_scored_far_out_is_critical() -> None:
    diagnosis = judge("e")
    assert {item.finding.rule for item in diagnosis.fired if item.finding.severity == "critical"} == {
        "reward-hacking",
        "length-collapse",
    }
    assert diagnosis.verdict.startswith("sick, ")
