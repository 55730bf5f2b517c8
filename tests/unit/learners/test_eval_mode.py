from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tiny import make_tiny_model
from tests.unit.builders import (
    critic_config,
    critic_learner,
    policy_config,
    policy_learner,
    prompt_batch,
    rollout_batch,
    spread_scores,
)


@pytest.fixture(scope="module")
def with_dropout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = make_tiny_model(tmp_path_factory.mktemp("dropout"))
    config = LlamaConfig.from_pretrained(str(directory))
    config.attention_dropout = 0.5
    config.save_pretrained(str(directory))
    assert LlamaForCausalLM.from_pretrained(str(directory)).model.layers[0].self_attn.attention_dropout == 0.5
    return directory


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_models_dropout_never_acts(with_dropout: Path, checkpointing: bool):
    prompts, model = prompt_batch(), {"gradient_checkpointing": checkpointing}
    critic = critic_learner(critic_config(with_dropout, model=model))
    rollouts = rollout_batch(critic.model.encoder.chat, prompts)
    first, second = (critic.score_batch(prompts, rollouts).student for _ in range(2))
    assert first.tolist() == second.tolist()
    policy = policy_learner(policy_config(with_dropout, model=model, epochs_per_step=2))
    policy.begin_adversarial()
    stats = policy.play(rollouts, spread_scores(rollouts))
    nll = [policy.teacher_nll(prompts.examples) for _ in range(2)]
    assert torch.equal(torch.from_numpy(nll[0]), torch.from_numpy(nll[1]))
    assert stats.num_skipped == 0


def test_gradient_checkpointing_recomputes_in_the_backward_pass(with_dropout: Path):
    calls: list[None] = []
    policy = policy_learner(policy_config(with_dropout, model={"gradient_checkpointing": True}))
    policy.model.lm.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(None))  # type: ignore[union-attr]
    policy.fit(prompt_batch())
    assert len(calls) == 2
