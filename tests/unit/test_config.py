"""Bad configurations end with file, key, value and what was probably meant; good ones survive a round trip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gad_ray.config import config_hash, load_config, to_yaml
from gad_ray.config.explain import batch_arithmetic
from gad_ray.errors import ConfigError

SMALL: dict[str, Any] = {
    "name": "small",
    "prompts_per_step": 4,
    "data": {"train": ["rows.jsonl"]},
    "policy": {"model": {"model": "here/policy"}},
    "critic": {"model": {"model": "here/critic"}},
    "rollout": {"responses_per_prompt": 2},
    "stages": {"warmup": {"steps": 3}, "adversarial": {"epochs": 2.0}},
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


def fault_of(path: Path | str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(str(path), overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("rolout.temperature=0.6", ["rolout", "Did you mean 'rollout'?"]),
        ("rollout.temprature=0.6", ["rollout.temprature", "Did you mean 'temperature'?"]),
        ("policy.loss={name: gspo, clip_lo: 0.1}", ["policy.loss.clip_lo", "Did you mean 'clip_low'?"]),
        (
            "policy.model.lora={rank: 4, alpha: 8.0, ranks: 4}",
            ["policy.model.lora.ranks", "Did you mean 'rank'?"],
        ),
        (
            "reward.format=[{name: no_repetition, ngrams: 3}]",
            ["reward.format.0.ngrams", "Did you mean 'ngram'?"],
        ),
    ],
)
def test_a_mistyped_key_is_named_with_what_was_meant(small: Path, override: str, told: list[str]) -> None:
    message = fault_of(small, override)
    for part in [str(small), *told]:
        assert part in message


def test_a_mistyped_key_lists_only_the_settings_of_the_chosen_variant(small: Path) -> None:
    message = fault_of(small, "policy.loss={name: gspo, clip_lo: 0.1}")
    assert "settings here: clip_high, clip_low, name" in message


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("rollout.temperature=-1.0", ["rollout.temperature = -1.0", "greater than or equal to 0"]),
        ("rollout.top_p=1.5", ["rollout.top_p = 1.5", "less than or equal to 1"]),
        ("rollout.top_p=.nan", ["rollout.top_p"]),
        ("prompts_per_step=0", ["prompts_per_step = 0", "greater than or equal to 1"]),
        ("prompts_per_step='4'", ["prompts_per_step = '4'", "valid integer"]),
        ("prompts_per_step=4.5", ["prompts_per_step = 4.5", "valid integer"]),
        ("name=a/b", ["name = 'a/b'"]),
        ("policy.model.compute=float16", ["policy.model.compute = 'float16'", "'float32' or 'bfloat16'"]),
        ("policy.loss={name: gspo, clip_low: 3.0}", ["policy.loss.clip_low = 3.0", "less than 1"]),
        ("policy.loss.name=trpo", ["policy.loss", "'trpo'", "ppo, gspo"]),
        ("critic.model=7", ["critic.model = 7", "object"]),
        ("data.train=[]", ["data.train", "at least 1 item"]),
    ],
)
def test_a_value_out_of_bounds_is_named_with_its_key(small: Path, override: str, told: list[str]) -> None:
    message = fault_of(small, override)
    for part in [*told, "(from the command line)"]:
        assert part in message


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["policy.mini_batch_prompts=3"],
            ["mini_batch_prompts = 3", "does not divide", "prompts_per_step = 4"],
        ),
        (["policy.group.num_ranks=5"], ["policy.group.num_ranks = 5", "exceeds prompts_per_step = 4"]),
        (["critic.group.num_ranks=5"], ["critic.group.num_ranks = 5"]),
        (
            ["policy.mini_batch_prompts=2", "policy.group.num_ranks=4"],
            ["exceeds policy.mini_batch_prompts = 2"],
        ),
        (["rollout.num_workers=9"], ["rollout.num_workers = 9"]),
        (["rollout.responses_per_prompt=1"], ["responses_per_prompt = 1", "at least 2"]),
        (["rollout.temperature=0.0"], ["rollout.temperature = 0"]),
        (["data.heldout=[h.jsonl]", "data.heldout_prompts=0"], ["heldout_prompts is 0"]),
        (["stages.warmup={steps: 1, epochs: 1.0}"], ["stages.warmup", "either steps or epochs"]),
        (["stages.warmup={}"], ["stages.warmup", "either steps or epochs"]),
        (["reward.discriminator_weight=0.0"], ["nothing is rewarded"]),
    ],
)
def test_a_contradiction_names_both_sides(small: Path, overrides: list[str], told: list[str]) -> None:
    message = fault_of(small, *overrides)
    for part in told:
        assert part in message


def test_every_fault_of_a_file_is_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    rollout = {"temprature": 1.0, "top_p": 2.0}
    path.write_text(yaml.safe_dump({**SMALL, "rollout": rollout, "prompts_per_step": -1}))
    message = fault_of(path)
    assert "rollout.temprature" in message
    assert "rollout.top_p = 2.0" in message
    assert "prompts_per_step = -1" in message
    assert "from the command line" not in message


def test_a_missing_setting_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in SMALL.items() if key != "critic"}))
    assert "critic: is needed and not given" in fault_of(path)


def test_a_key_given_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("name: a\nseed: 1\nname: b\n")
    message = fault_of(path)
    assert "key 'name' is given twice" in message
    assert "line 3" in message


@pytest.mark.parametrize("text", ["name: [a\n", "name: {a: b\n", "\tname: a\n", "name: a: b\n"])
def test_a_file_that_is_not_yaml_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    message = fault_of(path)
    assert str(path) in message
    assert "not readable as YAML" in message


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text\n"])
def test_a_file_without_settings_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text(text)
    assert "does not hold a mapping" in fault_of(path)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: caf\xe9\n".encode("latin-1"))
    assert "not readable as YAML" in fault_of(path)


def test_a_tag_that_would_run_python_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tag.yaml"
    path.write_text(f"name: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n")
    assert "not readable as YAML" in fault_of(path)
    assert not (tmp_path / "made").exists()


def test_an_unknown_recipe_is_answered_with_the_nearest_one() -> None:
    assert "Did you mean 'quickstart'?" in fault_of("quikstart")


def test_a_missing_file_is_named_with_the_recipes_there_are(tmp_path: Path) -> None:
    message = fault_of(tmp_path / "none.yaml")
    assert f"{tmp_path}/none.yaml" in message
    assert "quickstart" in message


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("rollout.temperature", "is not an override"),
        ("=3", "is not an override"),
        ("rollout.temperature=[", "not readable as YAML"),
        ("seed.deep=3", None),
        ("prompts_per_step.deep=3", "'prompts_per_step' in 'prompts_per_step.deep' is a value"),
        ("nothing.like.this=3", "nothing (from the command line): no such setting"),
    ],
)
def test_a_malformed_override_is_refused_by_name(small: Path, override: str, told: str | None) -> None:
    message = fault_of(small, override)
    assert (told or "seed") in message


def test_overrides_are_read_as_yaml_and_the_last_one_wins(small: Path) -> None:
    config = load_config(
        str(small), ["rollout.temperature=0.5", "rollout.temperature=0.6", "data.train=[a.jsonl, b.jsonl]"]
    )
    assert config.rollout.temperature == 0.6
    assert config.data.train == ("a.jsonl", "b.jsonl")


def test_an_override_of_a_stages_steps_replaces_its_epochs(small: Path) -> None:
    config = load_config(str(small), ["stages.adversarial.steps=7"])
    assert (config.stages.adversarial.steps, config.stages.adversarial.epochs) == (7, None)


def test_the_resolved_configuration_loads_as_the_same(small: Path, tmp_path: Path) -> None:
    config = load_config(str(small), ["policy.loss={name: gspo}", "policy.model.lora={rank: 4, alpha: 8.0}"])
    again = tmp_path / "resolved.yaml"
    again.write_text(to_yaml(config))
    assert load_config(str(again)) == config


def test_the_hash_follows_what_shapes_the_numbers_and_nothing_else(small: Path) -> None:
    plain = config_hash(load_config(str(small)))
    prolonged = load_config(
        str(small), ["stages.adversarial.steps=99", "limits.sync_s=1.0", "output_dir=elsewhere"]
    )
    assert config_hash(prolonged) == plain
    assert config_hash(load_config(str(small), ["rollout.temperature=0.7"])) != plain
    assert config_hash(load_config(str(small), ["stages.warmup.steps=4"])) != plain


def test_the_batch_arithmetic_is_told_in_words(small: Path) -> None:
    config = load_config(
        str(small),
        [
            "policy.mini_batch_prompts=2",
            "policy.epochs_per_step=3",
            "policy.group.num_ranks=2",
            "stages.warmup.policy=cross_entropy",
            "stages.warmup.critic_only_steps=1",
            "rollout.max_response_tokens=64",
        ],
    )
    lines = batch_arithmetic(config, num_prompts=10)
    assert lines[0] == "each step: 4 prompts × 2 responses = 8 responses of at most 64 tokens"
    assert "6 optimiser steps of 2 prompts (4 responses), 3 passes over each sample" in lines[1]
    assert "2 ranks, at most 1 prompts each" in lines[1]
    assert "1 optimiser step on 4 teacher responses and 8 policy responses" in lines[2]
    assert lines[3] == "data: 10 prompts, so an epoch is 2.5 steps"
    assert lines[4] == (
        "warm-up: 3 steps = 1.2 epochs, 24 responses; the policy is fitted to the teacher's text, "
        "after 1 step of the critic alone"
    )
    assert lines[5] == "adversarial: 5 steps = 2 epochs, 40 responses"
    assert lines[6].startswith("in all 8 steps;")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["rollout.top_p=0.9"], ["rollout.top_p = 0.9", "accept_biased_gradient"]),
        (["rollout.repetition_penalty=1.2"], ["rollout.repetition_penalty = 1.2", "accept_biased_gradient"]),
        (["max_staleness=1", "policy.loss.name=reinforce"], ["max_staleness = 1", "policy.importance"]),
    ],
)
def test_a_game_whose_gradient_would_be_biased_is_refused(overrides: list[str], told: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config("quickstart", overrides)
    assert all(part in str(raised.value) for part in told)


@pytest.mark.parametrize(
    "overrides",
    [
        ["rollout.top_p=0.9", "stages.adversarial.steps=0"],
        ["max_staleness=1"],
        ["max_staleness=1", "policy.loss.name=reinforce", "policy.importance.name=truncated"],
    ],
)
def test_what_biases_no_gradient_is_taken(overrides: list[str]) -> None:
    assert load_config("quickstart", overrides).accepted == []


def test_a_bias_can_be_accepted_by_name_and_is_told() -> None:
    config = load_config("quickstart", ["rollout.top_p=0.9", "rollout.accept_biased_gradient=true"])
    assert config.accepted == [
        "rollout.top_p = 0.9: the policy gradient is biased, as rollout.accept_biased_gradient accepts"
    ]
