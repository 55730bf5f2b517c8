"""The critic's variants by configuration: chosen by name, refused with another's settings, advised upon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gad_ray.config import RunConfig, load_config, to_yaml
from gad_ray.config.explain import batch_arithmetic
from gad_ray.core.discriminator import (
    AdaptiveRange,
    AdaptiveTemperature,
    BradleyTerryLoss,
    CrossEntropyLoss,
    FixedTemperature,
)
from gad_ray.errors import ConfigError
from gad_ray.health.rules import RULES

SMALL: dict[str, Any] = {
    "name": "small",
    "prompts_per_step": 4,
    "data": {"train": ["rows.jsonl"]},
    "policy": {"model": {"model": "some/model"}},
    "critic": {"model": {"model": "some/model"}},
    "rollout": {"responses_per_prompt": 2},
    "stages": {"warmup": {"steps": 3}, "adversarial": {"steps": 5}},
}
ADAPTIVE = "critic.loss.temperature={name: adaptive, preset: %s}"


def advised(rule: str, config: RunConfig) -> list[str]:
    changes = next(one for one in RULES if one.name == rule).advice
    return [text for change in changes if (text := change.override(config)) is not None]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "critic.pooling={name: blend, blend_start: 5, blend_end: 4}",
            ["critic.pooling ", "blend_end = 4 comes before blend_start = 5"],
        ),
        ("critic.pooling={name: blend, blend_start: 5}", ["critic.pooling.blend_end", "not given"]),
        (
            "critic.pooling={name: mix, blend_start: 5}",
            ["critic.pooling.blend_start", "no such setting", "name, w_norm, w_raw"],
        ),
        (
            "critic.pooling={name: mix, w_raw: 0.0, w_norm: 0.0}",
            ["critic.pooling ", "every score would be 0"],
        ),
        ("critic.pooling={name: max}", ["critic.pooling", "'max'", "mean, last, blend, mix"]),
        ("critic.loss={name: cross_entropy, margin: 1.0}", ["critic.loss.margin", "no such setting"]),
        ("critic.loss={name: hinge}", ["critic.loss", "'hinge'", "bradley_terry, cross_entropy"]),
        (
            "critic.loss.temperature={name: adaptive, value: 5.0, preset: sharp}",
            ["critic.loss.temperature.value", "no such setting"],
        ),
        ("critic.loss.temperature={name: adaptive}", ["critic.loss.temperature ", "a, b, lo, hi not given"]),
        ("critic.loss.temperature={name: adaptive, a: 1.0, b: 1.0, lo: 1.0}", ["hi not given"]),
        (
            "critic.loss.temperature={name: adaptive, preset: sharp, lo: 1.0}",
            ["critic.loss.temperature ", "preset = 'sharp' sets a, b, lo and hi"],
        ),
        (
            "critic.loss.temperature={name: adaptive, a: 1.0, b: 1.0, lo: 2.0, hi: 1.0}",
            ["hi = 1.0 is below lo = 2.0"],
        ),
        ("critic.replay={ratio: 1.0}", ["critic.replay.ratio = 1.0", "less than 1"]),
        ("critic.replay={max_age: 0}", ["critic.replay.max_age = 0"]),
        ("critic.truncated=drop", ["critic.truncated = 'drop'", "'keep' or 'exclude'"]),
    ],
)
def test_a_variant_that_cannot_be_is_refused_with_its_key(override: str, told: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("quickstart", [override])
    for part in told:
        assert part in str(caught.value)


def test_a_setting_of_the_default_variant_needs_no_name() -> None:
    critic = load_config("quickstart", ["critic.loss={margin: 0.5, temperature: {value: 3.0}}"]).critic
    assert isinstance(critic.loss, BradleyTerryLoss)
    assert critic.loss.temperature == FixedTemperature(value=3.0)
    assert critic.loss.margin == 0.5


@pytest.mark.parametrize(
    ("preset", "coefficients"), [("sharp", (0.3, 0.7, 0.3, 2.0)), ("smooth", (1.0, 0.6, 1.0, 7.0))]
)
def test_a_preset_stands_for_its_coefficients(preset: str, coefficients: tuple[float, ...]) -> None:
    temperature = load_config("quickstart", [ADAPTIVE % preset]).critic.loss.temperature
    assert isinstance(temperature, AdaptiveTemperature)
    assert temperature.setting == AdaptiveRange(
        **dict(zip(("a", "b", "lo", "hi"), coefficients, strict=True))
    )


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *[(f"critic.pooling={{name: {name}}}", {"pooling": {"name": name}}) for name in ("mean", "last", "mix")],
    (
        "critic.pooling={name: blend, blend_start: 254, blend_end: 500}",
        {"pooling": {"name": "blend", "blend_start": 254, "blend_end": 500}},
    ),
    (
        "critic.pooling={name: mix, w_raw: 0.5, w_norm: 0.5}",
        {"pooling": {"name": "mix", "w_raw": 0.5, "w_norm": 0.5}},
    ),
    ("critic.loss.temperature.value=0.5", {"loss": {"temperature": {"value": 0.5}}}),
    (ADAPTIVE % "sharp", {"loss": {"temperature": {"name": "adaptive", "preset": "sharp"}}}),
    (
        "critic.loss.temperature={name: adaptive, a: 0.1, b: 1.0, lo: 0.1, hi: 2.0}",
        {"loss": {"temperature": {"name": "adaptive", "a": 0.1, "b": 1.0, "lo": 0.1, "hi": 2.0}}},
    ),
    ("critic.loss.margin=0.5", {"loss": {"margin": 0.5}}),
    (
        "critic.loss.score_reg={threshold: 5.0, weight: 0.001}",
        {"loss": {"score_reg": {"threshold": 5.0, "weight": 0.001}}},
    ),
    ("critic.loss.batch_norm=true", {"loss": {"batch_norm": True}}),
    ("critic.loss={name: cross_entropy}", {"loss": {"name": "cross_entropy"}}),
    ("critic.updates_per_step=3", {"updates_per_step": 3}),
    ("critic.truncated=exclude", {"truncated": "exclude"}),
    (
        "critic.replay={size: 10, ratio: 0.25, max_age: 3}",
        {"replay": {"size": 10, "ratio": 0.25, "max_age": 3}},
    ),
    ("critic.packing=false", {"packing": False}),
]


@pytest.mark.parametrize(("override", "written"), VARIANTS, ids=lambda v: v if isinstance(v, str) else "")
def test_a_variant_is_the_same_from_a_file_as_from_the_command_line(
    tmp_path: Path, override: str, written: dict[str, Any]
) -> None:
    def file_with(critic: dict[str, Any]) -> str:
        path = tmp_path / f"run-{len(critic)}.yaml"
        path.write_text(yaml.safe_dump({**SMALL, "critic": {**SMALL["critic"], **critic}}), encoding="utf-8")
        return str(path)

    overridden = load_config(file_with({}), [override])
    assert load_config(file_with(written)) == overridden
    assert overridden != load_config(file_with({})) or override.endswith("mean}")


@pytest.mark.parametrize(
    ("override", "key", "named", "owner"),
    [
        ("critic.pooling={name: mean, w_raw: 1.0}", "critic.pooling.w_raw", "mean", "mix"),
        ("critic.pooling={name: last, blend_end: 9}", "critic.pooling.blend_end", "last", "blend"),
        (
            "critic.pooling={name: blend, blend_start: 1, blend_end: 2, w_norm: 1.0}",
            "critic.pooling.w_norm",
            "blend",
            "mix",
        ),
        ("critic.loss.temperature={name: fixed, a: 1.0}", "critic.loss.temperature.a", "fixed", "adaptive"),
        (
            "critic.loss.temperature={name: fixed, preset: sharp}",
            "critic.loss.temperature.preset",
            "fixed",
            "adaptive",
        ),
        (
            "critic.loss={name: cross_entropy, batch_norm: true}",
            "critic.loss.batch_norm",
            "cross_entropy",
            "bradley",
        ),
    ],
)
def test_a_variant_refuses_the_field_of_another(override: str, key: str, named: str, owner: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("quickstart", [override])
    message = str(caught.value)
    assert f"{key} (from the command line): '{named}' has no such setting, '{owner}" in message
    assert f"set {key.rpartition('.')[0]}.name to '{owner}" in message


def test_every_variant_survives_a_round_trip(tmp_path) -> None:
    overrides = [
        "critic.loss={name: cross_entropy, temperature: {name: adaptive, a: -1.0, b: 2.0, lo: 0.5, hi: 4.0}}",
        "critic.pooling={name: blend, blend_start: 254, blend_end: 500}",
        "critic.replay={size: 10, ratio: 0.25, max_age: 3}",
        "critic.truncated=exclude",
        "critic.packing=false",
    ]
    config = load_config("quickstart", overrides)
    assert isinstance(config.critic.loss, CrossEntropyLoss)
    path = tmp_path / "run.yaml"
    path.write_text(to_yaml(config))
    assert load_config(str(path)) == config


def test_the_batch_of_the_critic_is_told_with_what_is_left_out_and_added() -> None:
    overrides = ["critic.truncated=exclude", "critic.replay={size: 1000, ratio: 0.2}", "prompts_per_step=8"]
    config = load_config("quickstart", [*overrides, "rollout.responses_per_prompt=4"])
    line = next(line for line in batch_arithmetic(config, 100) if line.startswith("critic:"))
    assert (
        "32 policy responses, less those cut at the limit, and up to 8 replayed ones of at most 1000" in line
    )


def test_advice_names_only_settings_that_the_chosen_variant_has() -> None:
    sharp = ADAPTIVE % "sharp"
    cross_entropy = "critic.loss={name: cross_entropy, temperature: {name: adaptive, preset: smooth}}"
    found = advised("critic-overconfident", load_config("quickstart", [sharp]))
    assert "critic.loss.temperature.preset=smooth" in found
    assert not any(".value" in text for text in found)
    config = load_config("quickstart", [cross_entropy])
    found = advised("critic-overconfident", config) + advised("critic-blind", config)
    assert "critic.loss.temperature.preset=sharp" in found
    assert not any("batch_norm" in text or ".value" in text for text in found)
    for overrides in ([sharp], [cross_entropy]):
        before = load_config("quickstart", overrides)
        for rule in RULES:
            for text in advised(rule.name, before):
                assert load_config("quickstart", [*overrides, text]) != before
