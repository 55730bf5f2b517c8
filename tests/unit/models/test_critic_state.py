from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gad_ray.errors import ModelError
from gad_ray.learners.critic import CriticLearner
from gad_ray.models.critic_export import load_critic
from gad_ray.models.critic_state import CriticState, critic_of, frame_of
from tests.unit.builders import (
    PROMPTS,
    TEACHER,
    critic_config,
    critic_learner,
    pair,
    prompt_batch,
    rollout_batch,
)

PAIRS = [pair(prompt, response) for prompt, response in zip(PROMPTS, TEACHER, strict=True)]
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"model": {"compute": "bfloat16"}},
    "adapters": {"model": {"lora": {"rank": 2, "alpha": 4.0, "target_modules": ("q_proj", "down_proj")}}},
    "blended": {"pooling": {"name": "blend", "blend_start": 0, "blend_end": 4}},
}


def learned(directory: Path, **changed: Any) -> CriticLearner:
    """A critic after one update."""
    learner = critic_learner(critic_config(directory, **changed))
    prompts = prompt_batch()
    learner.score_and_update(prompts, rollout_batch(learner.model.encoder.chat, prompts))
    return learner


def state_of(learner: CriticLearner) -> CriticState:
    return learner.published(frame_of(learner.model))


@pytest.mark.parametrize("changed", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_critic_built_from_its_state_is_the_exported_one_to_the_bit(
    tied_model: Path, tmp_path: Path, changed: dict[str, Any]
):
    learner = learned(tied_model, **changed)
    learner.export(tmp_path / "critic")
    state = state_of(learner)
    built, exported = critic_of(state), load_critic(tmp_path / "critic")
    assert built.fingerprint() == exported.fingerprint() == learner.fingerprint() == state.fingerprint
    np.testing.assert_array_equal(
        built.score(PAIRS, micro_batch_tokens=8192), exported.score(PAIRS, micro_batch_tokens=8192)
    )
    assert (state.step, built.updates) == (1, learner.model.updates)
    assert built.encoder.max_tokens == exported.encoder.max_tokens


def test_a_built_critic_stays_as_it_is_while_the_run_goes_on(tied_model: Path):
    learner = learned(tied_model)
    built = critic_of(state_of(learner))
    before = built.fingerprint()
    with torch.no_grad():
        for parameter in learner.model.parameters():
            parameter.zero_()
    assert built.fingerprint() == before


def test_a_critic_with_a_weight_that_is_not_finite_is_not_published(tied_model: Path):
    learner = learned(tied_model)
    with torch.no_grad():
        next(learner.model.backbone.parameters()).view(-1)[3] = torch.inf
    with pytest.raises(ModelError, match="1 of its weights hold numbers that are not finite"):
        state_of(learner)


def _changed_weight(state: CriticState) -> CriticState:
    name = min(state.weights)
    changed = state.weights[name].copy()
    changed.flat[0] += 1
    return replace(state, weights={**state.weights, name: changed})


def _lacking_weight(state: CriticState) -> CriticState:
    return replace(state, weights={name: a for name, a in state.weights.items() if "norm" not in name})


def _other_head(state: CriticState) -> CriticState:
    return replace(state, head={**state.head, "weight": state.head["weight"] + 1})


def _other_template(state: CriticState) -> CriticState:
    template = state.frame["chat_template.jinja"] + b" "
    return replace(state, frame={**state.frame, "chat_template.jinja": template})


def _other_updates(state: CriticState) -> CriticState:
    return replace(state, updates=state.updates + 1)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_changed_weight, "its weights are not those it was published with"),
        (_lacking_weight, "Missing key"),
        (_other_head, "its head are not"),
        (_other_template, "its template are not"),
        (_other_updates, "its pooling are not"),
    ],
)
def test_a_state_that_is_not_what_was_published_is_refused(
    tied_model: Path, spoil: Callable[[CriticState], CriticState], told: str
):
    learner = learned(tied_model, **VARIANTS["blended"])
    with pytest.raises(ModelError, match=told):
        critic_of(spoil(state_of(learner)))
