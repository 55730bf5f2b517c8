import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gad_ray.batch import (
    Example,
    Message,
    PromptBatch,
    Ragged,
    RolloutBatch,
    SamplingSettings,
    ScoreBatch,
    StopReason,
)
from gad_ray.config.models import ModelConfig, OptimizerConfig
from gad_ray.config.policy import (
    AdaptiveKl,
    CispoLoss,
    DrGrpoAdvantage,
    GrpoAdvantage,
    GspoLoss,
    KlConfig,
    OpoAdvantage,
    PolicyConfig,
    PpoLoss,
    RankAdvantage,
    RefillConfig,
    ReinforceLoss,
    ReinforcePpAdvantage,
    RejectedImportance,
    RlooAdvantage,
    TruncatedImportance,
)
from gad_ray.config.reward import (
    CustomTerm,
    LeakedControl,
    LengthWindow,
    NoRepetition,
    ParsedJson,
    RequiredPattern,
    RewardConfig,
    SameLanguage,
)
from gad_ray.core.rewards import load_reward_function
from gad_ray.errors import ConfigError, TrainingError
from gad_ray.learners.collective import LocalCollective
from gad_ray.learners.experience import prompt_figures, reward_metrics, rewards_of
from gad_ray.learners.format_rewards import try_reward_functions
from gad_ray.learners.optim import StepResult
from gad_ray.learners.policy import PolicyLearner
from gad_ray.models.chat import ChatFormat, load_chat_format
from gad_ray.models.policy import rows_of_rollouts
from gad_ray.observability.metrics import check_metrics
from tests.tiny import make_tiny_model

TEXTS = (
    ("The sky is.", "Blue blue blue blue blue.", "Because of the dog."),
    ("a list", "fruits: oranges, pears and plums", "pears"),
    ("340", "17 times 23 is what?", "51"),
)
NO_KL = KlConfig(coefficient=0.0)
SCORES = [1.0, 3.0, -1.0, 0.5, 0.0, -2.0, 1.5, 1.0, 2.0]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("variants") / "model")


@pytest.fixture(scope="module")
def chat_format(directory: Path) -> ChatFormat:
    return load_chat_format(directory)


@pytest.fixture(scope="module")
def prompts() -> PromptBatch:
    examples = [
        Example(id=f"e{i}", messages=(Message(role="user", content=text),), teacher_response="Yes.")
        for i, text in enumerate(("Why is the sky blue?", "Write a list of fruits.", "What is 17 times 23?"))
    ]
    return PromptBatch(step=1, examples=tuple(examples))


@pytest.fixture(scope="module")
def rollouts(chat_format: ChatFormat, prompts: PromptBatch) -> RolloutBatch:
    pairs = [(e, t) for e, group in zip(prompts.examples, TEXTS, strict=True) for t in group]
    responses = [[*chat_format.response_ids(text), chat_format.end_of_turn_id] for _, text in pairs]
    return RolloutBatch(
        step=1,
        example_ids=tuple(e.id for e, _ in pairs),
        texts=tuple(text for _, text in pairs),
        prompt_tokens=Ragged.from_rows([chat_format.prompt_ids(e.messages) for e, _ in pairs], np.int32),
        response_tokens=Ragged.from_rows(responses, np.int32),
        logprobs=Ragged.from_rows([[-5.5] * len(r) for r in responses], np.float32),
        stop_reasons=(StopReason.STOP,) * len(pairs),
        policy_version=0,
        sampling=SamplingSettings(
            num_responses=3, temperature=1.0, top_p=1.0, repetition_penalty=1.0, max_tokens=64, seed=0
        ),
        teacher_lengths=np.full(len(pairs), 2, dtype=np.int32),
    )


def scored(values: list[float]) -> ScoreBatch:
    student = np.asarray(values, dtype=np.float32)
    return ScoreBatch(student=student, teacher=np.zeros_like(student), critic_version=0)


def learner_of(
    directory: Path,
    *,
    mini_batch_prompts: int = 3,
    max_prompts: int | None = None,
    reward: RewardConfig | None = None,
    **changed: Any,
) -> PolicyLearner:
    fields = {
        "model": ModelConfig(model=str(directory), compute="float32"),
        "optimizer": OptimizerConfig(lr=1e-2, eps=1e-3, grad_clip=1e6),
        "kl": NO_KL,
    }
    learner = PolicyLearner(
        PolicyConfig(**{**fields, **changed}),
        reward or RewardConfig(),
        mini_batch_prompts=mini_batch_prompts,
        total_steps=10,
        warmup_lr=None,
        collective=LocalCollective(),
        max_nonfinite_steps=2,
        max_prompts=max_prompts,
    )
    learner.begin_adversarial()
    return learner


def gradients_of(learner: PolicyLearner, *batch: Any) -> dict[str, Tensor]:
    """The gradient that an update hands to the optimiser, which then stands still."""
    found: dict[str, Tensor] = {}

    def record(loss: float) -> StepResult:
        found.update({n: p.grad.clone() for n, p in learner.model.named_parameters() if p.grad is not None})
        return StepResult(grad_norm=0.0, grad_norm_before_clip=0.0, lr=0.0, skipped=False)

    learner.optimizer.step = record  # type: ignore[method-assign]
    learner.update(*batch)
    learner.optimizer.zero_grad()
    return found


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor], relative: float = 1e-5) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        gap, size = float((found[name] - tensor).norm()), float(tensor.norm())
        assert gap <= relative * size + 1e-9, f"{name}: {gap} of {size}"


def weights_of(learner: PolicyLearner) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in learner.model.named_parameters()}


def subset(rollouts: RolloutBatch, rows: list[int]) -> RolloutBatch:
    return RolloutBatch(
        step=1,
        example_ids=tuple(rollouts.example_ids[i] for i in rows),
        texts=tuple(rollouts.texts[i] for i in rows),
        prompt_tokens=rollouts.prompt_tokens.take(rows),
        response_tokens=rollouts.response_tokens.take(rows),
        logprobs=rollouts.logprobs.take(rows),
        stop_reasons=(StopReason.STOP,) * len(rows),
        policy_version=0,
        sampling=rollouts.sampling,
        teacher_lengths=rollouts.teacher_lengths[rows],
    )


VARIANTS: list[dict[str, Any]] = [
    *[
        {"loss": loss(aggregation=how, length_divisor=64 if how == "constant" else None)}
        for loss in (PpoLoss, CispoLoss, ReinforceLoss)
        for how in ("token_mean", "sequence_mean", "constant")
    ],
    {"loss": GspoLoss(), "importance": RejectedImportance(unit="sequence")},
    *[{"kl": KlConfig(estimator=k, coefficient=0.1)} for k in ("k1", "k2", "k3")],
    {"kl": KlConfig(estimator="k1", place="reward", coefficient=0.1)},
    {"entropy_coefficient": 0.1},
    {"importance": RejectedImportance(cap=1.2)},
    {"importance": TruncatedImportance(cap=1.2)},
    *[
        {"advantage": advantage}
        for advantage in (
            GrpoAdvantage(zero_spread="drop"),
            DrGrpoAdvantage(),
            RlooAdvantage(),
            RankAdvantage(),
            ReinforcePpAdvantage(),
            OpoAdvantage(),
        )
    ],
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: " ".join(str(part) for part in v.values()))
def test_micro_batches_leave_every_variants_weights_and_metrics_as_they_are(
    directory: Path, rollouts: RolloutBatch, variant: dict[str, Any]
):
    results = []
    for budget in (1, 90, 16384):
        learner = learner_of(
            directory, mini_batch_prompts=2, epochs_per_step=2, micro_batch_tokens=budget, **variant
        )
        before = weights_of(learner)
        stats = learner.update(rollouts, scored(SCORES))
        check_metrics("adversarial", stats.metrics)
        results.append((weights_of(learner), {k: v for k, v in stats.metrics.items() if "perf" not in k}))
        assert any(not torch.equal(before[name], after) for name, after in results[-1][0].items())
    for weights, metrics in results[:-1]:
        assert_close(weights, results[-1][0])
        assert metrics == pytest.approx(results[-1][1], rel=2e-3, abs=1e-5)


@pytest.mark.parametrize("how", ["token_mean", "sequence_mean", "constant"])
def test_the_gradient_is_the_policy_gradient_in_its_aggregation(
    directory: Path, rollouts: RolloutBatch, how: Any
):
    divisor = 64 if how == "constant" else None
    learner = learner_of(
        directory,
        advantage=DrGrpoAdvantage(),
        loss=ReinforceLoss(aggregation=how, length_divisor=divisor),
    )
    found = gradients_of(learner, rollouts, scored(SCORES))
    rewards = torch.tensor(SCORES).view(3, 3)
    advantages = (rewards - rewards.mean(-1, keepdim=True)).flatten()
    out = learner.model.token_logprobs(rows_of_rollouts(rollouts))
    lengths = out.mask.sum(-1)
    per_row = -(advantages * out.logprobs.sum(-1))
    loss = {
        "token_mean": per_row.sum() / lengths.sum(),
        "sequence_mean": (per_row / lengths).mean(),
        "constant": per_row.sum() / (9 * 64),
    }[how]
    loss.backward()
    wanted = {n: p.grad.clone() for n, p in learner.model.named_parameters() if p.grad is not None}
    assert_close(found, wanted)


def test_the_entropy_bonus_adds_its_gradient(directory: Path, rollouts: RolloutBatch):
    plain = gradients_of(learner_of(directory), rollouts, scored(SCORES))
    learner = learner_of(directory, entropy_coefficient=0.5)
    found = gradients_of(learner, rollouts, scored(SCORES))
    out = learner.model.token_logprobs(rows_of_rollouts(rollouts), entropy_gradient=True)
    (-0.5 * out.entropy[out.mask].mean()).backward()
    wanted = {n: plain[n] + p.grad for n, p in learner.model.named_parameters() if p.grad is not None}
    assert_close(found, wanted, relative=1e-4)


# -- groups without spread ------------------------------------------------------------------------------


def test_dropped_groups_leave_the_loss_and_its_denominators(directory: Path, rollouts: RolloutBatch):
    scores = [1.0, 3.0, -1.0, 2.0, 2.0, 2.0, 1.5, 1.0, 2.0]
    dropping = learner_of(directory, advantage=GrpoAdvantage(zero_spread="drop"))
    found = gradients_of(dropping, rollouts, scored(scores))
    rest = [0, 1, 2, 6, 7, 8]
    wanted = gradients_of(learner_of(directory), subset(rollouts, rest), scored([scores[i] for i in rest]))
    assert_close(found, wanted)
    keeping = gradients_of(learner_of(directory), rollouts, scored(scores))
    share = sum(len(rollouts.response_tokens[i]) for i in rest) / rollouts.num_tokens
    assert_close(keeping, {name: g * share for name, g in wanted.items()})


def test_a_batch_without_any_spread_moves_nothing_when_dropped(directory: Path, rollouts: RolloutBatch):
    learner = learner_of(directory, advantage=RankAdvantage(zero_spread="drop"))
    before = weights_of(learner)
    stats = learner.update(rollouts, scored([2.0] * 9))
    assert (stats.num_steps, stats.num_skipped, learner.version) == (0, 0, 1)
    assert stats.metrics["actor/dropped_samples"] == 9.0
    assert all(torch.equal(before[name], after) for name, after in weights_of(learner).items())


# -- KL -------------------------------------------------------------------------------------------------


def test_a_penalty_in_the_reward_takes_the_summed_divergence_from_it(directory: Path, rollouts: RolloutBatch):
    kl = KlConfig(estimator="k1", place="reward", coefficient=0.25)
    learner = learner_of(directory, kl=kl, advantage=DrGrpoAdvantage())
    rows = rows_of_rollouts(rollouts)
    with torch.no_grad():
        reference = learner.model.token_logprobs(rows).logprobs
    first = learner.update(rollouts, scored(SCORES)).metrics
    assert first["reward/kl_penalty_mean"] == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        sums = (learner.model.token_logprobs(rows).logprobs - reference).sum(-1)
    penalised = [s - 0.25 * float(kl) for s, kl in zip(SCORES, sums, strict=True)]
    plain = learner_of(directory, advantage=DrGrpoAdvantage())
    plain.model.load_state_dict(learner.model.state_dict())
    wanted = gradients_of(plain, rollouts, scored(penalised))
    assert_close(gradients_of(learner, rollouts, scored(SCORES)), wanted, relative=1e-4)


def test_the_coefficient_adapts_and_survives_a_checkpoint(directory: Path, rollouts: RolloutBatch):
    adaptive = AdaptiveKl(target=1e-6, horizon=9)
    kl = KlConfig(coefficient=0.1, adaptive=adaptive)
    learner = learner_of(directory, kl=kl)
    seen = [learner.update(rollouts, scored(SCORES)).metrics["actor/kl_coef"] for _ in range(3)]
    # The first step measures 0, which is below the target; the later ones are far above it.
    assert seen == pytest.approx([0.1, 0.08, 0.096])
    tensors, plain = learner.state()
    other = learner_of(directory, kl=kl)
    other.load_state({name: t.clone() for name, t in tensors.items()}, plain)
    ours, theirs = (one.update(rollouts, scored(SCORES)).metrics for one in (learner, other))
    assert ours["actor/kl_coef"] == theirs["actor/kl_coef"] == pytest.approx(0.1152)
    assert ours["actor/kl_loss"] == theirs["actor/kl_loss"]


def test_the_reference_is_renewed_when_due_also_after_a_restart(directory: Path, rollouts: RolloutBatch):
    kl = KlConfig(coefficient=0.1, refresh_every=2)
    learner = learner_of(directory, kl=kl)
    seen = []
    for _ in range(5):
        seen.append(learner.update(rollouts, scored(SCORES)).metrics["actor/kl_loss"])
        tensors, plain = learner.state()
        tensors = {name: t.clone() for name, t in tensors.items()}
        learner = learner_of(directory, kl=kl)
        learner.load_state(tensors, plain)
    assert [value > 1e-9 for value in seen] == [False, True, False, True, False]


# -- importance -------------------------------------------------------------------------------------------


def test_rejected_tokens_are_counted_and_add_nothing(directory: Path, rollouts: RolloutBatch):
    learner = learner_of(directory, importance=RejectedImportance(cap=1.2), advantage=DrGrpoAdvantage())
    out = learner.model.token_logprobs(rows_of_rollouts(rollouts))
    ratio = (out.logprobs.detach() + 5.5).exp()
    rejected = out.mask & (ratio > 1.2)
    assert 0 < int(rejected.sum()) < rollouts.num_tokens
    rewards = torch.tensor(SCORES).view(3, 3)
    advantages = (rewards - rewards.mean(-1, keepdim=True)).flatten()[:, None]
    kept = torch.where(out.mask & ~rejected, -advantages * ratio * out.logprobs, 0.0)
    (kept.sum() / rollouts.num_tokens).backward()
    wanted = {n: p.grad.clone() for n, p in learner.model.named_parameters() if p.grad is not None}
    learner.model.zero_grad()
    assert_close(gradients_of(learner, rollouts, scored(SCORES)), wanted)
    fresh = learner_of(directory, importance=RejectedImportance(cap=1.2))
    metrics = fresh.update(rollouts, scored(SCORES)).metrics
    assert metrics["actor/importance_rejected_tokens"] == float(rejected.sum())
    assert metrics["actor/importance_clipfrac"] == pytest.approx(float(rejected.sum()) / rollouts.num_tokens)


# -- rewards ----------------------------------------------------------------------------------------------


@pytest.fixture
def user_module() -> Iterator[ModuleType]:
    module = ModuleType("rewards_of_a_user")
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


@pytest.fixture
def grumpy(user_module: ModuleType) -> CustomTerm:
    """A function that fails in three ways on three responses."""

    def grumpy(prompt: str, response: str) -> object:
        if response == "a list":
            raise RuntimeError("no lists")
        return {"340": float("nan"), "51": "a lot"}.get(response, 0.5 if "sky" in prompt else 0.0)

    name = f"grumpy_{id(grumpy)}"
    setattr(user_module, name, grumpy)
    return CustomTerm(function=f"{user_module.__name__}:{name}")


def test_a_response_on_which_the_users_function_fails_is_never_trained_on(
    directory: Path, rollouts: RolloutBatch, prompts: PromptBatch, grumpy: CustomTerm
):
    reward = RewardConfig(format=(grumpy,), max_failed_fraction=0.5)
    found = gradients_of(learner_of(directory, reward=reward), rollouts, scored(SCORES), prompts)
    rest = [0, 1, 2, 4, 5, 7]
    # The first prompt's responses are all given 0.5 more, which no advantage sees.
    wanted = gradients_of(learner_of(directory), subset(rollouts, rest), scored([SCORES[i] for i in rest]))
    assert_close(found, wanted)


def test_failures_of_the_users_function_are_counted_named_and_left_out_of_the_means(
    rollouts: RolloutBatch, prompts: PromptBatch, grumpy: CustomTerm, caplog: pytest.LogCaptureFixture
):
    config = RewardConfig(
        discriminator_weight=2.0,
        format=(grumpy, NoRepetition(ngram=1, weight=3.0)),
        max_failed_fraction=0.5,
    )
    rewards = rewards_of(rollouts, scored(SCORES), config, prompts)
    metrics = reward_metrics(rollouts, rewards, with_format=True)
    check_metrics("adversarial", metrics)
    assert metrics["reward/failed_samples"] == 3.0
    assert rewards.usable.tolist() == [True, True, True, False, True, True, False, True, False]
    assert metrics["format/custom"] == pytest.approx(0.25)
    assert metrics["critic/rewards/mean"] == pytest.approx(
        metrics["reward/discriminator_mean"] + metrics["format/reward_avg"]
    )
    assert metrics["reward/discriminator_mean"] == pytest.approx(2 * np.mean([1, 3, -1, 0, -2, 1]))
    for told in ("RuntimeError: no lists", "gave nan", "gave a str"):
        assert told in caplog.text


def test_a_batch_on_which_the_users_function_always_fails_moves_nothing(
    directory: Path, rollouts: RolloutBatch, prompts: PromptBatch, user_module: ModuleType
):
    user_module.broken = lambda prompt, response: None  # type: ignore[attr-defined]
    reward = RewardConfig(format=(CustomTerm(function="rewards_of_a_user:broken"),), max_failed_fraction=1.0)
    learner = learner_of(directory, reward=reward)
    before = weights_of(learner)
    assert learner.update(rollouts, scored(SCORES), prompts).num_steps == 0
    assert all(torch.equal(before[name], after) for name, after in weights_of(learner).items())
    rewards = rewards_of(rollouts, scored(SCORES), reward, prompts)
    metrics = reward_metrics(rollouts, rewards, with_format=True)
    assert metrics == {"actor/zero_spread_groups": 1.0, "reward/failed_samples": 9.0}


@pytest.mark.parametrize(("allowed", "stops"), [(0.33, True), (0.34, False)])
def test_a_run_stops_where_too_large_a_share_of_responses_has_no_reward(
    rollouts: RolloutBatch, prompts: PromptBatch, grumpy: CustomTerm, allowed: float, stops: bool
):
    config = RewardConfig(format=(grumpy,), max_failed_fraction=allowed)
    with pytest.raises(TrainingError) if stops else nullcontext() as caught:
        rewards_of(rollouts, scored(SCORES), config, prompts)
    if stops:
        told = "3 of 9 responses have no reward, more than reward.max_failed_fraction = 0.33 allows"
        assert told in str(caught.value)
        assert grumpy.function in str(caught.value)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([RuntimeError("no")], "raised RuntimeError: no"),
        ([float("nan")], "gave nan"),
        ([float("inf")], "gave inf"),
        ([3.0], "gave 3.0, which is not between -1.0 and 1.0"),
        ([[0.5, 0.5]], "gave a list, not a number"),
        ([np.ones(2)], "gave a ndarray, not a number"),
        ([0.25, 0.5], "gave 0.25, and then 0.5"),
    ],
)
def test_a_function_is_tried_on_a_teachers_response_before_the_run(
    user_module: ModuleType, prompts: PromptBatch, values: list[object], told: str
):
    given = [*values, values[-1]]

    def tried(prompt: str, response: str) -> object:
        assert (prompt, response) == ("Why is the sky blue?", "Yes.")
        value = given.pop(0)
        if isinstance(value, Exception):
            raise value
        return value

    user_module.tried = tried  # type: ignore[attr-defined]
    load_reward_function.cache_clear()
    config = RewardConfig(format=(CustomTerm(function="rewards_of_a_user:tried"),))
    with pytest.raises(ConfigError) as caught:
        try_reward_functions(config, prompts.examples[0])
    assert f"the reward function 'rewards_of_a_user:tried' {told}" in str(caught.value)
    assert "prompt 'e0'" in str(caught.value)


def test_a_function_that_gives_a_number_passes_its_trial(user_module: ModuleType, prompts: PromptBatch):
    user_module.fine = lambda prompt, response: np.float32(0.5)  # type: ignore[attr-defined]
    config = RewardConfig(format=(CustomTerm(function="rewards_of_a_user:fine"), NoRepetition()))
    try_reward_functions(config, prompts.examples[0])


def test_a_function_that_is_not_there_is_refused_before_the_model_is_loaded():
    with pytest.raises(ConfigError, match="no_such_module"):
        learner_of(
            Path("/no/such/model"), reward=RewardConfig(format=(CustomTerm(function="no_such_module:f"),))
        )


def test_every_term_is_logged_under_its_own_name_and_adds_up(rollouts: RolloutBatch, prompts: PromptBatch):
    config = RewardConfig(
        format=(
            RequiredPattern(regex=r"\d", weight=0.5),
            ParsedJson(weight=2.0),
            LeakedControl(),
            LengthWindow(max_tokens=10, soft_tokens=5),
            SameLanguage(),
            NoRepetition(ngram=1),
        )
    )
    rewards = rewards_of(rollouts, scored(SCORES), config, prompts)
    metrics = reward_metrics(rollouts, rewards, with_format=True)
    check_metrics("adversarial", metrics)
    assert metrics["format/pattern"] == pytest.approx(3 / 9)
    assert metrics["format/json"] == pytest.approx(2 / 9)
    assert metrics["format/leaked_control"] == 0.0
    assert metrics["format/language"] == 1.0
    assert -1.0 < metrics["format/length_window"] < 0.0
    weights = {"pattern": 0.5, "json": 2.0}
    total = sum(weights.get(name, 1.0) * metrics[f"format/{name}"] for name in rewards.terms)
    assert len(rewards.terms) == 6
    assert metrics["format/reward_avg"] == pytest.approx(total, rel=1e-5)
    assert metrics["critic/rewards/mean"] == pytest.approx(np.mean(SCORES) + total, rel=1e-5)


# -- groups that are not trained on --------------------------------------------------------------------


def test_a_response_that_is_alone_in_its_group_is_counted_and_not_trained_on(
    directory: Path, rollouts: RolloutBatch, prompts: PromptBatch
):
    # What generation failures leave of the second prompt's responses: one.
    few, rest = [0, 1, 2, 4, 6, 7, 8], [0, 1, 2, 6, 7, 8]
    found = gradients_of(
        learner_of(directory), subset(rollouts, few), scored([SCORES[i] for i in few]), prompts
    )
    wanted = gradients_of(learner_of(directory), subset(rollouts, rest), scored([SCORES[i] for i in rest]))
    assert_close(found, wanted)
    learner = learner_of(directory)
    metrics = learner.update(subset(rollouts, few), scored([SCORES[i] for i in few]), prompts).metrics
    check_metrics("adversarial", dict(metrics))
    assert metrics["actor/lone_samples"] == 1.0


@pytest.mark.parametrize("zero_spread", ["keep", "drop"])
def test_a_batch_of_lone_responses_moves_nothing(directory: Path, rollouts: RolloutBatch, zero_spread: Any):
    learner = learner_of(directory, advantage=GrpoAdvantage(zero_spread=zero_spread))
    before = weights_of(learner)
    stats = learner.update(subset(rollouts, [0, 3, 6]), scored([1.0, 2.0, 3.0]))
    assert stats.num_steps == 0
    assert stats.metrics["actor/lone_samples"] == 3.0
    assert all(torch.equal(before[name], after) for name, after in weights_of(learner).items())


def test_a_batch_takes_the_first_groups_with_spread_and_leaves_the_surplus(
    directory: Path, rollouts: RolloutBatch, prompts: PromptBatch
):
    """Three groups with spread for two places; the responses lie in another order than the prompts were drawn in."""
    refill = GrpoAdvantage(zero_spread="drop", refill=RefillConfig())
    drawn = PromptBatch(step=1, examples=tuple(prompts.examples[i] for i in (2, 0, 1)))
    learner = learner_of(directory, advantage=refill, max_prompts=2)
    found = gradients_of(learner, rollouts, scored(SCORES), drawn)
    rest = [0, 1, 2, 6, 7, 8]
    wanted = gradients_of(learner_of(directory), subset(rollouts, rest), scored([SCORES[i] for i in rest]))
    assert_close(found, wanted)
    metrics = (
        learner_of(directory, advantage=refill, max_prompts=2).update(rollouts, scored(SCORES), drawn).metrics
    )
    check_metrics("adversarial", dict(metrics))
    assert metrics["actor/surplus_samples"] == 3.0
    assert metrics["actor/dropped_samples"] == 0.0


def test_a_group_without_spread_takes_no_place(directory: Path, rollouts: RolloutBatch, prompts: PromptBatch):
    refill = GrpoAdvantage(zero_spread="drop", refill=RefillConfig())
    scores = [0.5, 0.5, 0.5, *SCORES[3:]]
    learner = learner_of(directory, advantage=refill, max_prompts=2)
    metrics = learner.update(rollouts, scored(scores), prompts).metrics
    assert metrics["actor/dropped_samples"] == 3.0
    assert metrics["actor/surplus_samples"] == 0.0


def test_figures_of_prompts_are_gap_and_spread_of_their_groups(rollouts: RolloutBatch):
    scores = ScoreBatch(
        student=np.asarray([0.5, 0.5, 0.5, 1.0, 2.0, 3.0, 0.0, 0.0, 1e-7], dtype=np.float32),
        teacher=np.asarray([2.0] * 3 + [-1.0] * 3 + [0.0] * 3, dtype=np.float32),
        critic_version=0,
    )
    figures = prompt_figures(rollouts, scores, rewards_of(rollouts, scores, RewardConfig()))
    assert figures.example_ids == ("e0", "e1", "e2")
    assert figures.gap.tolist() == pytest.approx([1.5, -3.0, 0.0], abs=1e-6)
    assert figures.has_spread.tolist() == [False, True, False]
    assert figures.num_with_spread == 1
