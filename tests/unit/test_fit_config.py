"""Offline fits by configuration: every recipe can be fitted as it stands, and nonsense is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from gad_ray.cli.train import fit
from gad_ray.config import RunConfig, config_hash, fit_hash, load_config, to_yaml
from gad_ray.config.explain import fit_arithmetic
from gad_ray.config.load import recipe_names
from gad_ray.errors import ConfigError


def quickstart(*overrides: str) -> RunConfig:
    return load_config("quickstart", overrides)


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_recipe_that_says_nothing_of_fitting_is_fitted_for_an_epoch_of_its_own_batches(recipe: str) -> None:
    config = load_config(recipe, ["fit={}"])
    for method in ("seqkd", "soda"):
        assert config.fit.of(method).in_steps(num_prompts=1000, prompts_per_step=10) == 100
        assert config.prompts_per_fit_step(method) == config.prompts_per_step


def test_a_length_in_steps_replaces_the_epochs_and_the_other_way_round(tmp_path: Path) -> None:
    config = quickstart("fit.seqkd.steps=7", "fit.soda.prompts_per_step=16")
    assert (config.fit.seqkd.steps, config.fit.seqkd.epochs) == (7, None)
    assert config.prompts_per_fit_step("soda") == 16
    saved = tmp_path / "config.yaml"
    saved.write_text(to_yaml(config))
    assert load_config(str(saved)) == config
    assert load_config(str(saved), ["fit.seqkd.epochs=2"]).fit.seqkd.steps is None


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("fit.soda.responses_per_prompt=0", "fit.soda.responses_per_prompt = 0"),
        ("fit.soda.beta=0", "fit.soda.beta = 0"),
        ("fit.soda.beta=-0.1", "fit.soda.beta = -0.1"),
        ("fit.soda.label_smoothing=0.5", "fit.soda.label_smoothing = 0.5"),
        ("fit.soda.nll_weight=-1", "fit.soda.nll_weight = -1"),
        ("fit.seqkd.beta=0.1", "fit.seqkd.beta (from the command line): no such setting"),
        ("fit.seqkd.prompts_per_step=0", "fit.seqkd.prompts_per_step = 0"),
        ("fit.seqkd={steps: 1, epochs: 1}", "give either steps or epochs"),
        ("fit.max_failures=-1", "fit.max_failures = -1"),
        ("stages.warm_start=sft", "'none', 'seqkd' or 'soda'"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(override: str, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        quickstart(override)
    assert told in str(raised.value)


def test_a_rank_without_work_in_a_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"num_ranks = 2 exceeds fit\.soda\.prompts_per_step = 1"):
        quickstart("policy.group.num_ranks=2", "fit.soda.prompts_per_step=1")


def test_an_unknown_method_is_told_which_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'soad' is no way to fit\n.*'soda'.*seqkd, soda"):
        fit("soad", "quickstart", [], dry_run=True, resume=None)


@pytest.mark.parametrize(
    "override",
    ["fit.soda.steps=9", "fit.max_failures=0", "fit.seqkd.optimizer.lr=0.1", "critic.head_lr=0.1", "name=x"],
)
def test_a_fit_may_go_on_with_what_does_not_shape_its_steps_changed(override: str) -> None:
    assert fit_hash(quickstart(override), "soda") == fit_hash(quickstart(), "soda")


@pytest.mark.parametrize(
    "override",
    [
        "fit.soda.beta=0.2",
        "fit.soda.prompts_per_step=4",
        "policy.model.compute=float32",
        "rollout.temperature=0.5",
    ],
)
def test_a_fit_does_not_go_on_with_other_settings(override: str) -> None:
    assert fit_hash(quickstart(override), "soda") != fit_hash(quickstart(), "soda")


def test_a_game_depends_on_the_settings_of_its_warm_start_and_of_no_other_fit() -> None:
    assert config_hash(quickstart("fit.seqkd.steps=9")) == config_hash(quickstart())
    started = "stages.warm_start=seqkd"
    assert config_hash(quickstart(started)) != config_hash(quickstart())
    assert config_hash(quickstart(started, "fit.seqkd.steps=9")) != config_hash(quickstart(started))
    assert config_hash(quickstart(started, "fit.soda.steps=9")) == config_hash(quickstart(started))


def test_the_arithmetic_of_a_fit_is_said_in_words() -> None:
    config = quickstart("fit.soda={steps: 30, prompts_per_step: 16, responses_per_prompt: 2}")
    told = "\n".join(fit_arithmetic(config, "soda", 420))
    assert "the base policy answers 420 prompts × 2 responses = 840 responses of at most 48 tokens" in told
    assert "each step: 16 prompts, DPO on 32 pairs, β = 0.1" in told
    assert "in all 30 steps = 1.14 epochs" in told
    config = quickstart("fit.seqkd.epochs=2", "fit.seqkd.prompts_per_step=null")
    told = "\n".join(fit_arithmetic(config, "seqkd", 420))
    assert "each step: 4 prompts, cross-entropy on 4 teacher responses" in told
    assert "in all 210 steps = 2 epochs" in told
