"""The reproductions' measuring, with a tiny model: the plumbing, not the claims."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from examples.failures import eos_asymmetry, last_pooling, saturation, standing_still
from examples.failures.bench import Bench, Verdict, scores_of
from examples.failures.catalogue import FAILURES, choose, reproduce
from examples.failures.settings import default_settings, field_policy, field_temperature
from gad_ray.batch import ScoreBatch
from gad_ray.config.run import RunConfig
from gad_ray.core.advantages import RankAdvantage
from gad_ray.core.discriminator import bradley_terry_loss
from gad_ray.core.pooling import LastPooling, MeanPooling
from gad_ray.errors import ConfigError
from gad_ray.models.pairs import Pair
from tests.unit.builders import weights_of


def score_batch(teacher: list[float], student: list[float]) -> ScoreBatch:
    return ScoreBatch(
        teacher=np.asarray(teacher, np.float32), student=np.asarray(student, np.float32), critic_version=0
    )


def test_a_verdict_counts_pairs_of_one_prompt_and_of_all() -> None:
    verdict = Verdict.of(score_batch([1.0, 3.0], [2.0, 0.0]))
    assert verdict.d_acc == 0.5
    assert verdict.auc == 0.75  # 1 > 0, 3 > 2, 3 > 0, and not 1 > 2
    assert verdict.score_diff == 1.0
    assert verdict.student == 1.0
    assert verdict.std == pytest.approx(math.sqrt(1.25))


def test_the_settings_are_our_defaults_but_for_sizes_and_rates() -> None:
    config = default_settings(seed=3)
    assert config.critic.loss.temperature.value == saturation.TAU == 5.0
    assert isinstance(config.critic.pooling, MeanPooling)
    assert config.policy.advantage.name == "grpo"
    assert config.policy.kl.coefficient == 0.001
    assert (config.seed, config.data.seed) == (3, 3)
    field = field_policy(config.policy)
    assert isinstance(field.advantage, RankAdvantage)
    assert (field.optimizer.lr, field.kl.coefficient) == (5e-6, 0.15)
    assert field_temperature(config.critic).loss.temperature.value == 0.5


# -- eos-asymmetry -------------------------------------------------------------------------------------


def test_the_broken_rendering_adds_the_end_of_turn_token_to_the_students_side_alone(bench: Bench) -> None:
    critic = bench.new_critic()
    sound = critic.model.encoder
    eos_asymmetry.break_rendering(critic)
    messages = bench.data.heldout[0].messages
    text = "It is fine."
    teacher = critic.model.encoder.encode(Pair(messages, text))
    student = critic.model.encoder.encode(Pair(messages, eos_asymmetry.sampled([text])[0]))
    wanted = sound.encode(Pair(messages, text))
    assert teacher.ids.tolist() == wanted.ids.tolist()
    assert student.ids.tolist() == [*wanted.ids.tolist(), bench.chat.end_of_turn_id]
    assert student.start == teacher.start == wanted.start
    assert student.ids.dtype == np.int32


def test_identical_answers_differ_with_the_broken_rendering_and_by_exactly_0_with_ours(bench: Bench) -> None:
    examples = bench.data.heldout
    texts = [e.teacher_response for e in examples]
    critic = bench.default_critic()
    twice = scores_of(critic, [*examples, *examples], [*texts, *texts])
    assert (twice[: len(texts)] == twice[len(texts) :]).all()
    eos_asymmetry.break_rendering(critic)
    broken = scores_of(critic, examples, eos_asymmetry.sampled(texts))
    assert (broken != scores_of(critic, examples, texts)).all()


# -- last-pooling --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "other"),
    [("Yes.", "Yes!"), ("Yes!", "Yes."), ("Yes?", "Yes."), ("Yes", None), ("", None), ("print(2)", None)],
)
def test_another_ending_is_another_final_punctuation_mark(text: str, other: str | None) -> None:
    assert last_pooling.other_ending(text) == other


@pytest.mark.parametrize(
    ("text", "other"),
    [("one two three four five", "one two four five"), ("one two three four", None), ("", None)],
)
def test_the_word_left_out_is_the_middle_one(text: str, other: str | None) -> None:
    assert last_pooling.without_middle_word(text) == other


def test_the_gradient_of_the_last_tokens_value_reaches_earlier_tokens(bench: Bench) -> None:
    last = bench.new_critic(bench.config.critic.model_copy(update={"pooling": LastPooling()}))
    pair = Pair(bench.data.heldout[0].messages, "The number is one of many.")
    share = last_pooling.earlier_share(last.model, pair)
    assert 0.0 < share < 1.0


def test_a_changed_last_token_moves_a_mean_by_its_value_over_the_length(bench: Bench) -> None:
    mean = bench.new_critic()
    last = bench.new_critic(bench.config.critic.model_copy(update={"pooling": LastPooling()}))
    example = bench.data.heldout[0]
    texts = [example.teacher_response, str(last_pooling.other_ending(example.teacher_response))]
    length = len(mean.model.encoder.chat.response_ids(texts[0]))
    assert length == len(mean.model.encoder.chat.response_ids(texts[1]))
    by_mean, by_last = (np.diff(scores_of(c, [example] * 2, texts))[0] for c in (mean, last))
    # Both have the same weights; no earlier token sees the last one.
    assert by_mean == pytest.approx(by_last / length, rel=1e-3)


# -- saturation ----------------------------------------------------------------------------------------


def test_the_signal_is_that_of_the_loss_and_leaves_the_critic_as_it_is(bench: Bench) -> None:
    critic = bench.default_critic()
    before = weights_of(critic)
    samples = bench.warmup[0]
    signal = saturation.signal_of(critic, [samples], tau=2.0)
    scores = critic.score_batch(samples.prompts, samples.rollouts)
    difference = scores.teacher - scores.student
    assert signal.score_diff == pytest.approx(float(difference.mean()), abs=1e-6)
    assert signal.sigmoid == pytest.approx(float(np.mean(1 / (1 + np.exp(-difference / 2.0)))), abs=1e-6)
    assert signal.gradient > 0.0
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(critic).items())
    assert all(p.grad is None for p in critic.model.parameters())


def test_the_gradient_in_the_scores_vanishes_with_a_small_temperature_alone() -> None:
    gradients = {}
    for tau in (0.5, 5.0):
        teacher, student = torch.tensor([5.0], requires_grad=True), torch.tensor([-5.0])
        loss, _ = bradley_terry_loss(teacher, student, group=torch.tensor([0]), temperature=tau)
        loss.backward()
        gradients[tau] = float(teacher.grad[0])
    # −σ(−d/τ)/τ at d = 10.
    assert gradients[0.5] == pytest.approx(-2.0 / (1.0 + math.exp(20.0)), rel=1e-4)
    assert gradients[5.0] == pytest.approx(-0.2 / (1.0 + math.exp(2.0)), rel=1e-4)


# -- games ---------------------------------------------------------------------------------------------


def test_changed_texts_are_counted() -> None:
    assert standing_still.num_changed(["a", "b", "c"], ["a", "x", "y"]) == 2


@pytest.fixture(scope="module")
def findings(bench: Bench) -> dict[str, dict[str, object]]:
    return {f.failure: dataclasses.asdict(f) for f in reproduce(choose([]), bench)}


@pytest.mark.parametrize("name", FAILURES)
def test_every_failure_is_measured_from_end_to_end(findings: dict[str, dict[str, object]], name: str) -> None:
    finding = findings[name]
    assert json.loads(json.dumps(finding)) == json.loads(json.dumps(finding))
    assert isinstance(finding["holds"], bool)
    assert finding["seconds"] > 0.0
    for figure in finding["figures"]:
        assert math.isfinite(figure["field"])
        assert figure["ours"] is None or math.isfinite(figure["ours"])


def test_identical_answers_are_exactly_equal_in_the_finding(findings: dict[str, dict[str, object]]) -> None:
    figures = {f["label"]: f for f in findings["eos-asymmetry"]["figures"]}
    assert figures["largest difference of identical answers"]["ours"] == 0.0
    assert figures["largest difference of identical answers"]["field"] > 0.0
    assert figures["d_acc on identical held-out answers"]["ours"] == 0.5


def test_the_first_answers_are_those_of_the_policy_as_it_came_also_after_a_game(
    bench: Bench, findings: dict[str, dict[str, object]], tiny_settings: RunConfig
) -> None:
    untouched = Bench(tiny_settings, tell=lambda _: None)
    assert findings
    assert bench.warmup[0].rollouts.texts == untouched.warmup[0].rollouts.texts
    assert bench.greedy.rollouts.texts == untouched.greedy.rollouts.texts


def test_every_caller_gets_a_warm_critic_of_its_own(bench: Bench) -> None:
    one, other = bench.default_critic(), bench.default_critic()
    start = weights_of(other)
    bench.train(one, bench.warmup[:1], what="")
    assert one.version == other.version + 1
    assert all(torch.equal(weight, start[name]) for name, weight in weights_of(other).items())
    assert all(torch.equal(w, start[n]) for n, w in weights_of(bench.default_critic()).items())


def test_an_unknown_failure_is_refused_with_the_names_there_are() -> None:
    assert choose(["saturation", "eos-asymmetry"]) == ["eos-asymmetry", "saturation"]
    with pytest.raises(ConfigError, match=r"(?s)'saturaton'.*saturation"):
        choose(["saturaton"])
