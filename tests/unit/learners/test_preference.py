"""The policy learns from pairs: on a tiny model, whole and in parts, by itself and on two ranks."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gad_ray.batch import Ragged, RolloutBatch
from gad_ray.config import SodaFit
from gad_ray.learners.preference import (
    PreferenceGroup,
    ReferenceLogprobs,
    preference_groups,
    preference_step,
    reference_logprobs,
)
from gad_ray.models.policy import teacher_row
from tests.unit.builders import (
    TEACHER,
    GamePolicy,
    assert_close,
    gradients_of,
    policy_config,
    policy_learner,
    prompt_batch,
    rollout_batch,
)

TEXTS = (("The sky is.", "Blue blue."), ("a list",), ("340", "17 times 23 is what?"), ("Hello",))


def soda(**changed: Any) -> SodaFit:
    return SodaFit(**changed)


def learner_of(model: Path, **changed: Any) -> GamePolicy:
    return policy_learner(policy_config(model, **changed))


def groups_of(learner: GamePolicy) -> dict[str, PreferenceGroup]:
    prompts = prompt_batch()
    return preference_groups(
        learner.model.chat, prompts.examples, rollout_batch(learner.model.chat, prompts, texts=TEXTS)
    )


def step(learner: GamePolicy, config: SodaFit, **shifted: float) -> dict[str, float]:
    """A step on all groups; ``shifted`` moves the reference of the chosen or the rejected rows."""
    groups = groups_of(learner)
    references = reference_logprobs(learner, groups)
    moved = [
        ReferenceLogprobs(
            values=r.values
            + np.asarray(
                [shifted.get("chosen", 0.0)] + [shifted.get("rejected", 0.0)] * (len(r.values) - 1),
                dtype=np.float32,
            )
        )
        for r in references.values()
    ]
    return dict(preference_step(learner, list(groups.values()), moved, config).metrics)


def test_a_group_holds_the_teachers_text_with_its_end_and_the_responses_as_they_were_sampled(
    tied_model: Path,
):
    learner = learner_of(tied_model)
    chat, prompts = learner.model.chat, prompt_batch()
    responses = rollout_batch(chat, prompts, texts=TEXTS)
    groups = preference_groups(chat, prompts.examples, responses)
    assert list(groups) == [example.id for example in prompts.examples]
    assert [len(group.rejected) for group in groups.values()] == [2, 1, 2, 1]
    for example in prompts.examples:
        group = groups[example.id]
        assert group.chosen.ids.tolist() == teacher_row(chat, example, end_of_turn=True).ids.tolist()
        assert group.chosen.ids[-1] == chat.end_of_turn_id
        assert {row.start for row in group.rows} == {group.chosen.start}
    first = groups[prompts.examples[0].id].rejected[1]
    assert first.ids[first.start :].tolist() == responses.response_tokens[1].tolist()


def test_a_prompt_without_any_response_has_no_group(tied_model: Path):
    learner = learner_of(tied_model)
    prompts = prompt_batch()
    answered = dataclasses.replace(prompts, examples=prompts.examples[:2])
    responses: RolloutBatch = rollout_batch(learner.model.chat, answered, texts=TEXTS)
    groups = preference_groups(learner.model.chat, prompts.examples, responses)
    assert list(groups) == [example.id for example in answered.examples]


def test_reference_likelihoods_are_sums_over_each_response(tied_model: Path):
    learner = learner_of(tied_model)
    groups = groups_of(learner)
    references = reference_logprobs(learner, groups)
    for name, group in groups.items():
        alone = [float(learner.model.token_logprobs([row]).logprobs.detach().sum()) for row in group.rows]
        np.testing.assert_allclose(references[name].values, alone, rtol=1e-5)


def test_the_first_step_from_the_reference_itself_sees_no_margin(tied_model: Path):
    metrics = step(learner_of(tied_model), soda())
    assert metrics["dpo/loss"] == pytest.approx(math.log(2.0), abs=1e-5)
    assert metrics["dpo/margin"] == pytest.approx(0.0, abs=1e-4)
    assert metrics["dpo/pairs"] == 6


def test_the_figures_are_means_over_all_pairs(tied_model: Path):
    metrics = step(learner_of(tied_model), soda(beta=0.5), chosen=-3.0, rejected=1.0)
    assert metrics["dpo/chosen_reward"] == pytest.approx(1.5, abs=1e-4)
    assert metrics["dpo/rejected_reward"] == pytest.approx(-0.5, abs=1e-4)
    assert metrics["dpo/margin"] == pytest.approx(2.0, abs=1e-4)
    assert metrics["dpo/loss"] == pytest.approx(math.log1p(math.exp(-2.0)), abs=1e-4)
    assert metrics["dpo/accuracy"] == 1.0


def test_steps_raise_the_teachers_text_above_the_students(tied_model: Path):
    learner = learner_of(tied_model)
    groups = groups_of(learner)
    references = list(reference_logprobs(learner, groups).values())
    history = [preference_step(learner, list(groups.values()), references, soda()).metrics for _ in range(4)]
    assert history[-1]["dpo/loss"] < history[0]["dpo/loss"]
    assert history[-1]["dpo/margin"] > 0.0
    assert history[-1]["dpo/accuracy"] == 1.0
    assert learner.version == 4


@pytest.mark.parametrize("config", [soda(), soda(beta=1.0, label_smoothing=0.1, nll_weight=0.5)])
def test_micro_batches_leave_the_gradient_as_it_is(tied_model: Path, config: SodaFit):
    # 150 tokens hold one group at a time, or less.
    whole, parts = (
        gradients_of(learner, lambda learner=learner: step(learner, config, chosen=2.0))
        for learner in (
            learner_of(tied_model, micro_batch_tokens=8192),
            learner_of(tied_model, micro_batch_tokens=150),
        )
    )
    assert_close(parts, whole, relative=1e-5, absolute=1e-7)


def test_the_cross_entropys_gradient_is_that_of_fitting_times_its_weight(tied_model: Path):
    learner = learner_of(tied_model)
    plain, both = (
        gradients_of(learner, lambda w=weight: step(learner, soda(nll_weight=w))) for weight in (0.0, 0.25)
    )
    fitted = gradients_of(learner, lambda: learner.fit(prompt_batch()))
    wanted = {name: plain[name] + 0.25 * gradient for name, gradient in fitted.items()}
    assert_close(both, wanted, relative=1e-4, absolute=1e-6)


def test_the_cross_entropy_reported_is_that_of_the_teachers_text(tied_model: Path):
    learner = learner_of(tied_model)
    reported = step(learner, soda())["actor/ce_loss"]
    assert reported == pytest.approx(learner_of(tied_model).fit(prompt_batch()).metrics["actor/ce_loss"])


def test_a_response_cut_at_the_limit_is_compared_without_an_end(tied_model: Path):
    learner = learner_of(tied_model)
    chat, prompts = learner.model.chat, prompt_batch(1)
    cut = [chat.response_ids("The sky is blue because")]
    responses = rollout_batch(
        chat,
        prompts,
        texts=[("The sky is blue because",)],
        response_tokens=Ragged.from_rows(cut, np.int32),
        logprobs=Ragged.from_rows([[-1.0] * len(cut[0])], np.float32),
    )
    (group,) = preference_groups(chat, prompts.examples, responses).values()
    assert group.rejected[0].ids[-1] != chat.end_of_turn_id
    assert len(group.chosen) - group.chosen.start == len(chat.response_ids(TEACHER[0])) + 1
