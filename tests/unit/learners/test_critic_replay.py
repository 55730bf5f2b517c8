"""Past responses in the critic's batch: what they change, what they must not, and that a run resumes with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gad_ray.batch import PromptBatch
from gad_ray.checkpoint.tensors import load_state, save_state
from gad_ray.config.critic import ReplayConfig
from gad_ray.learners.critic import CriticLearner
from gad_ray.models.chat import ChatFormat
from tests.unit.builders import assert_gradients_close, figures_of, gradients_of, rollout_batch
from tests.unit.learners.variants import (
    CRITIC_LOSSES,
    POOLINGS,
    REPLAY,
    SMALL,
    TEXTS,
    WHOLE,
    batch_of,
    spread_critic,
)


def judge(learner: CriticLearner, chat: ChatFormat, step: int) -> Any:
    batch = batch_of(chat, step=step)
    return learner.score_and_update(batch.prompts, batch.rollouts)


def test_replayed_responses_enter_the_gradient_and_no_figure(tied_model: Path, chat: ChatFormat):
    loss = CRITIC_LOSSES["fixed"]
    plain = spread_critic(tied_model, loss=loss)
    replaying = spread_critic(tied_model, loss=loss, replay=REPLAY)
    for learner in (plain, replaying):
        judge(learner, chat, 1)
    results: list[Any] = []
    gradients = [
        gradients_of(learner, lambda learner=learner: results.append(judge(learner, chat, 2)))
        for learner in (plain, replaying)
    ]
    (scores, stats), (replay_scores, replay_stats) = results
    assert any(float((gradients[1][n] - g).norm()) > 1e-3 for n, g in gradients[0].items())
    np.testing.assert_allclose(replay_scores.student, scores.student, atol=1e-5, rtol=0)
    own = {"critic/replay_size": 24.0, "critic/replay_age": 1.0}
    logged, wanted = (
        {name: value for name, value in figures_of(s.metrics).items() if "grad" not in name}
        for s in (replay_stats, stats)
    )
    trained = {name: logged.pop(name) for name in list(logged) if "/trained_" in name}
    assert logged == pytest.approx({**wanted, **own}, rel=1e-4, abs=1e-6)
    assert abs(trained["critic/trained_ranking_loss"] - logged["critic/ranking_loss"]) > 1e-4


def test_the_temperature_that_is_logged_is_the_one_that_trained_the_past_responses_with(
    tied_model: Path, chat: ChatFormat
):
    logged: list[tuple[float, float]] = []
    for replay in (None, REPLAY):
        learner = spread_critic(tied_model, loss=CRITIC_LOSSES["free"], replay=replay)
        judge(learner, chat, 1)
        gradients_of(learner, lambda learner=learner: logged.append(both(learner, judge(learner, chat, 2))))
    (alone, state_alone), (replayed, state_replayed) = logged
    assert alone == state_alone
    assert replayed == state_replayed
    assert abs(replayed - alone) > 1e-4


def both(learner: CriticLearner, judged: Any) -> tuple[float, float]:
    """τ as logged, and as the learner would export it."""
    _, stats = judged
    return stats.metrics["critic/temperature"], learner.state()[1]["temperature"]


@pytest.mark.parametrize("name", ["fixed", "batch norm", "cross-entropy"])
@pytest.mark.parametrize("budget", [SMALL, WHOLE])
def test_the_batch_with_replay_is_that_of_fresh_and_past_responses_together_and_its_loss_is_logged(
    tied_model: Path, chat: ChatFormat, name: str, budget: int
):
    """At a ratio of one half, all of the step before is drawn: two steps' rows in one batch."""
    loss = CRITIC_LOSSES[name]
    learner = spread_critic(tied_model, loss=loss, replay=REPLAY, micro_batch_tokens=budget)
    results: list[Any] = []
    gradients_of(learner, lambda: judge(learner, chat, 1))
    found = gradients_of(learner, lambda: results.append(judge(learner, chat, 2)))
    fresh, past = (batch_of(chat, step=step).prompts.examples for step in (2, 1))
    renamed = tuple(dataclasses.replace(example, id=f"past {example.id}") for example in past)
    both = PromptBatch(step=1, examples=(*fresh, *renamed))
    texts = [[f"{text} 2" for text in group] for group in TEXTS] + [list(group) for group in TEXTS]
    plain = spread_critic(tied_model, loss=loss)
    wanted = gradients_of(
        plain, lambda: results.append(plain.score_and_update(both, rollout_batch(chat, both, texts=texts)))
    )
    assert_gradients_close(found, wanted)
    logged, together = (stats.metrics for _, stats in results)
    trained = {n.replace("trained_", ""): value for n, value in logged.items() if "/trained_" in n}
    assert len(trained) == (6 if name == "batch norm" else 4)
    assert trained == pytest.approx({n: together[n] for n in trained}, rel=1e-4, abs=1e-6)
    assert logged["critic/ranking_loss"] != pytest.approx(trained["critic/ranking_loss"], rel=1e-4)


def test_excluded_responses_are_not_kept_for_later(tied_model: Path, chat: ChatFormat):
    learner = spread_critic(tied_model, truncated="exclude", replay=REPLAY)
    _, stats = judge(learner, chat, 1)
    assert stats.metrics["critic/replay_size"] == 9.0
    assert learner.replay is not None
    kept = [past.response for past in learner.replay.draw(num_fresh=9, step=2)]
    assert kept == [TEXTS[0][0], TEXTS[0][2], *TEXTS[2], *TEXTS[3]]


def test_a_critic_with_replay_resumes_bit_for_bit_from_its_file(
    tied_model: Path, chat: ChatFormat, tmp_path: Path
):
    config: dict[str, Any] = {
        "loss": CRITIC_LOSSES["sharp"],
        "pooling": POOLINGS["blend"],
        "replay": ReplayConfig(size=15, ratio=0.4, max_age=3),
    }
    first = spread_critic(tied_model, **config)
    for step in (1, 2):
        judge(first, chat, step)
    save_state(tmp_path / "state", *first.state())
    second = spread_critic(tied_model, **config)
    second.load_state(*load_state(tmp_path / "state"))
    assert second.fingerprint() == first.fingerprint()
    for step in (3, 4):
        one, other = (judge(learner, chat, step) for learner in (first, second))
        assert one[0].student.tolist() == other[0].student.tolist()
        assert figures_of(one[1].metrics) == figures_of(other[1].metrics)
    assert second.fingerprint() == first.fingerprint()
