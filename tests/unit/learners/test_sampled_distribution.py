"""The policy gradient is of the distribution that responses are drawn from: against exact enumeration.

Every response of one token is a member of the toy's world: the whole vocabulary of the tiny model, so that expectations
are sums. A longer toy of two tokens holds the same for sequences.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from gad_ray.batch import Ragged, RolloutBatch
from gad_ray.config.models import OptimizerConfig
from gad_ray.config.policy import KlConfig, TruncatedImportance
from gad_ray.core.advantages import DrGrpoAdvantage
from gad_ray.core.logprobs import token_logprobs
from gad_ray.core.sampling import processed_logits
from gad_ray.models.policy import SequenceRow
from tests.unit.builders import (
    SMOOTH,
    GamePolicy,
    assert_gradients_close,
    drawn_by,
    gradients_of,
    policy_config,
    policy_learner,
    prompt_batch,
    rollout_batch,
    sampling,
    score_batch,
    user,
)

TEMPERATURES = [0.6, 0.8, 1.0, 1.5]


@pytest.fixture
def learner(tied_model: Path) -> GamePolicy:
    config = policy_config(
        tied_model,
        kl=KlConfig(coefficient=0.0),
        optimizer=OptimizerConfig(lr=1e-3, **SMOOTH),
        advantage=DrGrpoAdvantage(),
    )
    learner = policy_learner(config)
    with torch.no_grad():  # a fresh model is almost uniform: every temperature would look alike
        for parameter in learner.model.trainable().values():
            parameter.mul_(1.35)
    learner.begin_adversarial()
    return learner


@pytest.fixture
def world(learner: GamePolicy) -> list[SequenceRow]:
    """Every response of one token to a prompt."""
    prompt = learner.model.chat.prompt_ids(user("Say one thing."))
    vocabulary = learner.model.lm.config.vocab_size
    return [
        SequenceRow(ids=np.asarray([*prompt, t], dtype=np.int32), start=len(prompt))
        for t in range(vocabulary)
    ]


def rewards(count: int) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(3))


def gradient(learner: GamePolicy, value: Tensor) -> Tensor:
    found = torch.autograd.grad(value, list(learner.model.trainable().values()), allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


def logits_of(learner: GamePolicy, world: list[SequenceRow]) -> Tensor:
    """[vocabulary] what the model itself gives for the response's token, by no code of the learner's."""
    ids = torch.from_numpy(world[0].ids[: world[0].start].astype(np.int64))[None]
    return learner.model.lm(input_ids=ids).logits[0, -1].float()


def exact_gradient(learner: GamePolicy, world: list[SequenceRow], temperature: float) -> Tensor:
    """∇ Σ p(y) r(y) with p(y) ∝ exp(logit/T), by differentiating the probabilities themselves."""
    probabilities = (logits_of(learner, world) / temperature).softmax(-1)
    return gradient(learner, (probabilities * rewards(len(world))).sum())


def expected_score(
    learner: GamePolicy, world: list[SequenceRow], drawn: Tensor, weight: Tensor, *, temperature: float
) -> Tensor:
    """E[weight(y) ∇log π(y)] over the distribution ``drawn``, with the log-probabilities that the learner trains on."""
    logprobs = learner.model.token_logprobs(world, temperature=temperature).logprobs[:, 0]
    return gradient(learner, (drawn * weight * logprobs).sum())


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_gradient_is_that_of_the_expected_reward_under_what_is_sampled(
    learner: GamePolicy, world: list[SequenceRow], temperature: float
):
    drawn = (logits_of(learner, world) / temperature).softmax(-1).detach()
    found = expected_score(learner, world, drawn, rewards(len(world)), temperature=temperature)
    assert relative(found, exact_gradient(learner, world, temperature)) < 1e-4


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_without_a_reward_nothing_pushes_the_policy(
    learner: GamePolicy, world: list[SequenceRow], temperature: float
):
    """E ∇log π = 0: otherwise a baseline is not free, and entropy drifts."""
    drawn = (logits_of(learner, world) / temperature).softmax(-1).detach()
    ones = torch.ones(len(world))
    size = expected_score(learner, world, drawn, rewards(len(world)), temperature=temperature).norm()
    assert expected_score(learner, world, drawn, ones, temperature=temperature).norm() < 1e-4 * size


def test_log_probabilities_at_another_temperature_than_the_samples_would_push_and_err(
    learner: GamePolicy, world: list[SequenceRow]
):
    """The fault that these tests are there for: it shows in them."""
    drawn = (logits_of(learner, world) / 0.6).softmax(-1).detach()
    exact, ones = exact_gradient(learner, world, 0.6), torch.ones(len(world))
    wrong = expected_score(learner, world, drawn, rewards(len(world)), temperature=1.0)
    assert relative(wrong / wrong.norm(), exact / exact.norm()) > 0.1
    assert expected_score(learner, world, drawn, ones, temperature=1.0).norm() > 0.1 * wrong.norm()


@pytest.mark.parametrize("knob", [{"top_p": 0.7}, {"repetition_penalty": 1.5}])
def test_a_nucleus_or_a_penalty_biases_the_gradient_which_is_why_the_game_refuses_them(
    learner: GamePolicy, world: list[SequenceRow], knob: dict[str, float]
):
    logits = logits_of(learner, world).detach()
    seen = torch.zeros_like(logits, dtype=torch.bool)
    seen[logits.argsort(descending=True)[:20]] = True
    settings = sampling(temperature=0.8, **knob)
    drawn = processed_logits(logits[None], seen=seen[None], settings=settings)[0].softmax(-1)
    found = expected_score(learner, world, drawn, rewards(len(world)), temperature=0.8)
    assert relative(found, exact_gradient(learner, world, 0.8)) > 0.1


def test_two_tokens_a_response_have_the_exact_gradient_too():
    """A table of logits for the first token and one row of logits for the second after each of them."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(5, generator=generator, dtype=torch.float64).requires_grad_()
    second = torch.randn(5, 5, generator=generator, dtype=torch.float64).requires_grad_()
    reward = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    joint = (first / 0.6).softmax(-1)[:, None] * (second / 0.6).softmax(-1)
    wanted = torch.autograd.grad((joint * reward).sum(), [first, second], retain_graph=True)
    token = torch.arange(5)
    begun = token_logprobs(first.expand(5, 5), token, temperature=0.6)[0]
    ended = torch.stack([token_logprobs(row.expand(5, 5), token, temperature=0.6)[0] for row in second])
    sums = begun[:, None] + ended
    found = torch.autograd.grad((joint.detach() * reward * sums).sum(), [first, second])
    for ours, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-7)


# -- the learner itself --------------------------------------------------------------------------------


def batch(learner: GamePolicy, *, temperature: float) -> RolloutBatch:
    rollouts = rollout_batch(learner.model.chat, prompt_batch(3))
    return replace(rollouts, sampling=sampling(temperature=temperature))


SCORES = [1.0, 3.0, -1.0, 0.5, 0.0, -2.0, 1.5, 1.0, 2.0]


@pytest.mark.parametrize("place", ["loss", "reward"])
def test_an_update_takes_the_temperature_from_its_samples_in_all_of_its_passes(
    learner: GamePolicy, place: str, monkeypatch: pytest.MonkeyPatch, tied_model: Path
):
    config = policy_config(tied_model, kl=KlConfig(coefficient=0.1, place=place), epochs_per_step=2)
    penalised = policy_learner(config, mini_batch_prompts=1)
    penalised.begin_adversarial()
    seen: list[float] = []
    original = type(penalised.model).token_logprobs

    def watch(self: object, rows: object, **named: object) -> object:
        seen.append(float(named.get("temperature", 1.0)))  # type: ignore[arg-type]
        return original(self, rows, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(type(penalised.model), "token_logprobs", watch)
    penalised.play(batch(penalised, temperature=0.7), score_batch(SCORES))
    assert set(seen) == {0.7}
    seen.clear()
    penalised.fit(prompt_batch(3))
    penalised.teacher_nll(prompt_batch(3).examples)
    assert set(seen) == {1.0}


def test_an_updates_gradient_is_the_one_worked_out_at_the_samples_temperature(learner: GamePolicy):
    rollouts = batch(learner, temperature=0.6)
    logprobs: list[Tensor] = []
    for prompt, response in zip(rollouts.prompt_tokens, rollouts.response_tokens, strict=True):
        ids = torch.from_numpy(np.concatenate([prompt, response]).astype(np.int64))[None]
        logits = learner.model.lm(input_ids=ids).logits[0].float() / 0.6
        predicted = logits[len(prompt) - 1 : -1].log_softmax(-1)
        logprobs.append(predicted.gather(-1, torch.from_numpy(response.astype(np.int64))[:, None]).sum())
    score = torch.tensor(SCORES).reshape(3, 3)
    advantage = (score - score.mean(1, keepdim=True)).flatten()
    tokens = rollouts.num_tokens
    exact = gradient(learner, -(advantage * torch.stack(logprobs)).sum() / tokens)
    found = gradients_of(learner, lambda: learner.play(rollouts, score_batch(SCORES)))
    flat = torch.cat([found[name].flatten() for name in learner.model.trainable()])
    assert relative(flat, exact) < 1e-4


def test_greedy_text_cannot_be_trained_on(learner: GamePolicy):
    with pytest.raises(ValueError, match=r"temperature = 0\.0"):
        learner.play(batch(learner, temperature=0.0), score_batch(SCORES))


# -- samples of an older policy --------------------------------------------------------------------------


def stale(learner: GamePolicy, shift: float) -> RolloutBatch:
    """Samples of an older version, whose engine gave every token ``shift`` nats less than the policy does now."""
    rollouts = batch(learner, temperature=1.0)
    with torch.no_grad():
        rows = [SequenceRow(ids=np.concatenate([p, r]), start=len(p)) for p, r in zip(rollouts.prompt_tokens, rollouts.response_tokens, strict=True)]  # fmt: skip
        now = learner.model.token_logprobs(rows)
    values = [(row[mask] - shift).numpy() for row, mask in zip(now.logprobs, now.mask, strict=True)]
    return replace(
        rollouts,
        logprobs=Ragged.from_rows(values, np.float32),
        policy_versions=np.full(len(rollouts), learner.version - 1),
    )


def test_in_a_batch_of_several_versions_each_sample_is_held_against_the_policy_that_drew_it(
    learner: GamePolicy,
):
    older, own = stale(learner, shift=0.3), stale(learner, shift=0.0)
    fresh = np.arange(len(older)) % 3 == 1

    def gradient(rollouts: RolloutBatch, *, fresh: NDArray[np.bool_]) -> dict[str, Tensor]:
        versions = np.where(fresh, learner.version, -1)
        return gradients_of(
            learner, lambda: learner.play(replace(rollouts, policy_versions=versions), score_batch(SCORES))
        )

    # The same ratios as the engine would tell them: of fresh samples, the policy's own log-probabilities.
    rows = [(own if use else older).logprobs[i] for i, use in enumerate(fresh)]
    told = replace(older, logprobs=Ragged.from_rows(rows, np.float32))
    nothing = np.zeros_like(fresh)
    found = gradient(older, fresh=fresh)
    assert_gradients_close(found, gradient(told, fresh=nothing))
    with pytest.raises(AssertionError):
        assert_gradients_close(found, gradient(older, fresh=nothing))


def test_the_ratio_of_stale_samples_is_to_the_policy_that_drew_them_and_the_clip_acts(learner: GamePolicy):
    metrics = learner.play(stale(learner, shift=0.1), score_batch(SCORES)).metrics
    assert metrics["actor/ratio_gap_max"] == pytest.approx(np.exp(0.1) - 1.0, rel=1e-3)
    assert metrics["actor/clipfrac"] == 0.0
    metrics = learner.play(stale(learner, shift=0.5), score_batch(SCORES)).metrics
    # exp(0.5) lies above 1.2: every token whose advantage is positive is clipped.
    assert metrics["actor/clipfrac"] > 0.3
    assert metrics["rollout/mismatch_abs"] == pytest.approx(0.5, rel=1e-3)


def test_fresh_samples_keep_a_ratio_of_one_whatever_the_engine_gave(learner: GamePolicy):
    fresh = drawn_by(learner, stale(learner, shift=0.5))
    assert learner.play(fresh, score_batch(SCORES)).metrics["actor/ratio_gap_max"] == 0.0


def test_importance_weights_take_the_ratios_place_for_stale_samples(learner: GamePolicy, tied_model: Path):
    config = policy_config(tied_model, kl=KlConfig(coefficient=0.0), importance=TruncatedImportance(cap=2.0))
    weighted = policy_learner(config)
    weighted.begin_adversarial()
    metrics = weighted.play(stale(weighted, shift=0.1), score_batch(SCORES)).metrics
    assert metrics["actor/ratio_gap_max"] == 0.0
    assert metrics["actor/importance_weight_mean"] == pytest.approx(np.exp(0.1), rel=1e-3)


# -- schedules ----------------------------------------------------------------------------------------------


def test_every_stage_has_a_schedule_of_its_own(tied_model: Path):
    optimizer = OptimizerConfig(lr=1e-3, schedule="linear", min_lr_ratio=0.0)
    learner = policy_learner(policy_config(tied_model, optimizer=optimizer), total_steps=2, fit_steps=4)
    prompts = prompt_batch(3)
    rates = [learner.fit(prompts).metrics["actor/lr"] for _ in range(4)]
    assert rates == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])
    learner.begin_adversarial()
    rollouts = rollout_batch(learner.model.chat, prompts)
    rates = [
        learner.play(drawn_by(learner, rollouts), score_batch(SCORES)).metrics["actor/lr"] for _ in range(2)
    ]
    assert rates == pytest.approx([1e-3, 5e-4])


def test_a_warm_up_without_a_game_after_it_is_trained_to_its_end(tied_model: Path):
    optimizer = OptimizerConfig(lr=1e-3, schedule="cosine")
    learner = policy_learner(policy_config(tied_model, optimizer=optimizer), total_steps=0, fit_steps=3)
    rates = [learner.fit(prompt_batch(3)).metrics["actor/lr"] for _ in range(3)]
    assert rates == pytest.approx([1e-3, 7.5e-4, 2.5e-4])
