import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gad_ray.config import load_config, to_yaml
from gad_ray.errors import ConfigError

SMALL: dict[str, Any] = {
    "name": "small",
    "prompts_per_step": 4,
    "data": {"train": ["rows.jsonl"]},
    "policy": {"model": {"model": "some/model"}},
    "critic": {"model": {"model": "some/model"}},
    "rollout": {"responses_per_prompt": 2},
    "stages": {"warmup": {"steps": 3}, "adversarial": {"steps": 5}},
}

VARIANTS = [
    *[f"policy.advantage={{name: {n}}}" for n in ("grpo", "dr_grpo", "rloo", "rank", "reinforce_pp", "opo")],
    *[f"policy.loss={{name: {n}}}" for n in ("ppo", "gspo", "cispo", "reinforce")],
    "policy.loss={name: cispo, aggregation: sequence_mean}",
    "policy.loss={name: ppo, aggregation: constant, length_divisor: 512}",
    "policy.advantage={name: rank, zero_spread: drop}",
    "policy.advantage={name: opo, zero_spread: drop, refill: {max_rounds: 3, oversample: 1.5}}",
    "data.curriculum={name: difficulty, column: hardness, order: descending, min: 1.0, missing: quarantine}",
    "data.curriculum={name: gap, order: descending, keep: 0.5, shuffle: true}",
    "data.curriculum={name: spread_first, epochs: 0.5}",
    "policy.kl={estimator: k1, place: reward}",
    "policy.kl={estimator: k2, adaptive: {target: 0.01, horizon: 1000}, refresh_every: 50}",
    "policy.entropy_coefficient=0.01",
    "policy.importance={name: truncated, cap: 4.0}",
    "policy.importance={name: rejection, unit: sequence}",
    "reward.format=[{name: pattern, regex: '^a'}, {name: json, required_keys: [a]}, {name: leaked_control}]",
    "reward.format=[{name: length_window, max_tokens: 9, soft_tokens: 2}, {name: language, weight: 0.5}]",
    "reward.format=[{name: custom, function: 'my_package.rewards:polite', low: 0.0}]",
]

FOREIGN = [
    ("policy.advantage={name: rloo, std_floor: 0.1}", "policy.advantage.std_floor"),
    ("policy.advantage={name: rank, clip: 5.0}", "policy.advantage.clip"),
    ("policy.loss={name: gspo, aggregation: token_mean}", "policy.loss.aggregation"),
    ("policy.loss={name: gspo, length_divisor: 9}", "policy.loss.length_divisor"),
    ("policy.loss={name: reinforce, clip_low: 0.2}", "policy.loss.clip_low"),
    ("policy.importance={name: truncated, unit: token}", "policy.importance.unit"),
    ("reward.format=[{name: json, regex: x}]", "reward.format.0.regex"),
    ("reward.format=[{name: pattern, regex: x, ngram: 3}]", "reward.format.0.ngram"),
    ("reward.format=[{name: language, function: 'a:b'}]", "reward.format.0.function"),
]

WRONG = [
    ("policy.advantage={name: opo, lengths: 5.0}", ["policy.advantage.lengths", "no such setting"]),
    ("policy.kl={target: 0.1}", ["policy.kl.target", "no such setting"]),
    ("policy.advantage={refill: {}}", ["policy.advantage", "set zero_spread to 'drop'"]),
    ("policy.advantage={zero_spread: drop, refill: {max_rounds: 0}}", ["refill.max_rounds = 0"]),
    ("policy.advantage={zero_spread: drop, refill: {oversample: 0.5}}", ["refill.oversample = 0.5"]),
    ("data.curriculum={name: difficulty, min: 2.0, max: 1.0}", ["data.curriculum", "min = 2.0 is above"]),
    ("data.curriculum={name: difficulty, order: shuffled}", ["data.curriculum", "changes nothing"]),
    ("data.curriculum={name: gap, shuffle: true}", ["data.curriculum", "changes nothing"]),
    ("data.curriculum={name: spread_first}", ["data.curriculum", "give either steps or epochs"]),
    ("data.curriculum={name: spread_first, steps: 0}", ["data.curriculum", "has no length"]),
    ("policy.advantage={name: gae}", ["policy.advantage.name = 'gae'", "no such variant", "opo"]),
    ("policy.loss={name: ppo, aggregation: constant}", ["policy.loss", "needs length_divisor"]),
    (
        "policy.loss={name: ppo, length_divisor: 9}",
        ["length_divisor = 9", "belongs to aggregation 'constant'"],
    ),
    ("policy.kl={coefficient: 0.0, adaptive: {target: 0.1}}", ["policy.kl", "coefficient, which is 0"]),
    ("policy.kl={estimator: k4}", ["policy.kl.estimator = 'k4'"]),
    ("policy.importance={name: rejection, cap: 0.5}", ["policy.importance.cap = 0.5"]),
    ("reward.format=[{name: pattern, regex: '('}]", ["reward.format.0.regex = '('", "no regular expression"]),
    (
        "reward.format=[{name: length_window, max_tokens: 9, soft_tokens: 5, min_tokens: 5}]",
        ["min_tokens = 5", "no length is free of penalty"],
    ),
    ("reward.format=[{name: custom, function: polite}]", ["reward.format.0.function = 'polite'"]),
    ("reward.format=[{name: custom, function: 'a:b', low: 1.0}]", ["low = 1.0 is not below high = 1.0"]),
]


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return str(path)


@pytest.mark.parametrize("override", VARIANTS)
def test_every_variant_survives_being_written_and_read(small: str, tmp_path: Path, override: str) -> None:
    config = load_config(small, [override])
    again = tmp_path / "resolved.yaml"
    again.write_text(to_yaml(config))
    assert load_config(str(again)) == config
    assert config != load_config(small) or "grpo}" in override or "ppo}" in override


@pytest.mark.parametrize(("override", "key"), FOREIGN)
def test_a_variant_refuses_the_field_of_another(small: str, override: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(small, [override])
    variant = yaml.safe_load(override.partition("=")[2])
    chosen = (variant[0] if isinstance(variant, list) else variant)["name"]
    told = str(caught.value)
    assert f"{key} (from the command line): '{chosen}' has no such setting" in told
    parent = key.rpartition(".")[0]
    meant = re.search(rf"Leave it out, or set {re.escape(parent)}\.name to '(\w+)'", told)
    assert meant is not None
    assert meant[1] != chosen


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "policy.advantage={name: grop}",
            "policy.advantage.name = 'grop' (from the command line): no such variant",
        ),
        ("policy.advantage={name: grop}", "Did you mean 'grpo'? (variants: grpo, dr_grpo, rloo"),
        ("reward.format=[{name: regex}]", "reward.format.0.name = 'regex' (from the command line)"),
        ("data.curriculum={keep: 0.5}", "one of: difficulty, gap, spread_first"),
    ],
)
def test_a_variant_that_is_not_there_is_told_with_those_that_are(
    small: str, override: str, told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(small, [override])
    assert told in str(caught.value)


@pytest.mark.parametrize(("override", "told"), WRONG)
def test_a_setting_that_makes_no_sense_is_refused_by_name(small: str, override: str, told: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(small, [override])
    for part in told:
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "rank", "reinforce_pp", "opo"])
def test_an_advantage_of_groups_refuses_groups_of_one(small: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' compares the responses of a group and needs at least 2"):
        load_config(small, [f"policy.advantage={{name: {name}}}", "rollout.responses_per_prompt=1"])


def test_a_refill_of_stale_samples_is_refused(small: str) -> None:
    with pytest.raises(ConfigError, match=r"max_staleness = 2 goes without policy\.advantage\.refill"):
        load_config(small, ["policy.advantage={zero_spread: drop, refill: {}}", "max_staleness=2"])
