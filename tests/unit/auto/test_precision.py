"""What ``auto`` comes to, by rates that are given; what is warned of; what a resumed run keeps."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gad_ray import machine
from gad_ray.auto import Rates, Resolved, Shape, resolve, speed_from, speed_of, warn_of_slow_critic
from gad_ray.auto import precision as module
from gad_ray.auto.shapes import shape_of
from gad_ray.config import ModelConfig, RolloutConfig, RunConfig, config_hash, load_config
from gad_ray.errors import ConfigError
from gad_ray.models.critic import CriticModel
from gad_ray.models.critic_export import export_critic
from tests.tiny import make_tiny_model
from tests.unit.auto_machine import AMX, AVX2, SHAPE, have_rates

KEYS = ("policy.model.compute", "critic.model.compute", "rollout.precision")

Given = Callable[[Rates], list[tuple[Shape, int]]]


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> Given:
    """Lets the machine have these rates; gives a list of what was asked of it."""

    def have(found: Rates) -> list[tuple[Shape, int]]:
        return have_rates(monkeypatch, found)

    return have


def of_precision(found: Resolved) -> list[str]:
    return [str(choice) for choice in found.choices if choice.key in KEYS]


def taken(config: RunConfig) -> list[str]:
    return [config.policy.model.compute, config.critic.model.compute, config.rollout.precision]


def all_set(value: str) -> list[str]:
    return [f"{key}={value}" for key in KEYS]


@pytest.mark.parametrize(
    ("float32", "bfloat16", "faster", "is_slow"),
    [
        (100.0, 870.0, "bfloat16", False),
        (100.0, 120.0, "bfloat16", False),
        (100.0, 119.0, "float32", False),
        (100.0, 100.0, "float32", False),
        (119.0, 100.0, "float32", False),
        (120.0, 100.0, "float32", True),
        (120.0, 12.0, "float32", True),
    ],
)
def test_bfloat16_is_taken_if_it_is_clearly_faster_and_is_slow_if_it_is_clearly_slower(
    float32: float, bfloat16: float, faster: str, is_slow: bool
) -> None:
    speed = speed_from(Rates(float32=float32, bfloat16=bfloat16), SHAPE, threads=2)
    assert (speed.faster, speed.bfloat16_is_slow) == (faster, is_slow)


@pytest.mark.parametrize("recipe", ["quickstart", "paper", "field"])
def test_every_recipe_leaves_its_precision_to_the_machine(recipe: str) -> None:
    assert taken(load_config(recipe)) == ["auto"] * 3


@pytest.mark.parametrize(("found", "wanted"), [(AVX2, "float32"), (AMX, "bfloat16")])
def test_auto_follows_the_rates_and_tells_them(rates: Given, found: Rates, wanted: str) -> None:
    rates(found)
    resolved = resolve(load_config("quickstart"))
    assert taken(resolved.config) == [wanted] * 3
    assert resolved.warnings == []
    for key, line in zip(KEYS, of_precision(resolved), strict=True):
        assert line.startswith(f"{key} = {wanted}, which auto comes to: ")
        assert f"{found.bfloat16:.0f} GFLOP/s in bfloat16, {found.float32:.0f} in float32" in line


def test_a_slow_choice_is_warned_of_with_rates_and_what_mends_it(rates: Given) -> None:
    rates(AVX2)
    resolved = resolve(load_config("quickstart", all_set("bfloat16")))
    assert taken(resolved.config) == ["bfloat16"] * 3
    for key, warning in zip(KEYS, resolved.warnings, strict=True):
        assert warning.startswith(f"{key} = bfloat16 is slow here: 12 GFLOP/s in bfloat16, 120 in float32")
        assert warning.endswith(f"→ set {key}=auto, or float32")


def test_float32_as_set_needs_no_measurement_and_no_warning(rates: Given) -> None:
    asked = rates(AMX)
    resolved = resolve(load_config("quickstart", all_set("float32")))
    assert asked == []
    assert resolved.warnings == []
    assert of_precision(resolved) == [f"{key} = float32, as set" for key in KEYS]


def test_it_is_measured_with_the_threads_that_will_compute(rates: Given) -> None:
    asked = rates(AMX)
    threads = ["policy.group.threads=3", "critic.group.threads=5", "rollout.threads=7"]
    resolve(load_config("quickstart", threads))
    assert asked == [(SHAPE, 3), (SHAPE, 5), (SHAPE, 7)]


@pytest.mark.parametrize(
    ("capabilities", "wanted", "is_slow"),
    [
        ((9.0,), "bfloat16", False),
        ((8.0, 8.9), "bfloat16", False),
        ((8.0, 7.5), "float32", True),
        ((), "bfloat16", False),
    ],
)
def test_a_gpu_is_judged_by_its_compute_capability_alone(
    monkeypatch: pytest.MonkeyPatch, rates: Given, capabilities: tuple[float, ...], wanted: str, is_slow: bool
) -> None:
    asked = rates(AVX2)
    monkeypatch.setattr(machine, "gpu_capabilities", lambda: capabilities)
    resolved = resolve(load_config("field"))
    assert taken(resolved.config) == [wanted] * 3
    assert bool(resolve(load_config("field", all_set("bfloat16"))).warnings) is is_slow
    assert asked == []


def test_a_part_on_a_gpu_and_one_beside_it_on_the_cpu_are_judged_apart(
    monkeypatch: pytest.MonkeyPatch, rates: Given
) -> None:
    rates(AVX2)
    monkeypatch.setattr(machine, "gpu_capabilities", lambda: (9.0,))
    resolved = resolve(load_config("quickstart", ["policy.group.gpus_per_rank=1.0"]))
    assert taken(resolved.config) == ["bfloat16", "float32", "float32"]


def test_a_resumed_run_keeps_its_precision_on_a_machine_that_would_choose_another(rates: Given) -> None:
    rates(AMX)
    began = resolve(load_config("quickstart")).config
    rates(AVX2)
    resumed = resolve(load_config("quickstart"), earlier=began)
    assert taken(resumed.config) == ["bfloat16"] * 3
    assert config_hash(resumed.config) == config_hash(began)
    assert all("as the run began" in line for line in of_precision(resumed))
    assert len(resumed.warnings) == 3
    assert "a resumed run keeps what it began with" in resumed.warnings[0]


def test_a_resumed_run_in_float32_measures_nothing(rates: Given) -> None:
    rates(AVX2)
    began = resolve(load_config("quickstart")).config
    asked = rates(AMX)
    resumed = resolve(load_config("quickstart"), earlier=began)
    assert taken(resumed.config) == ["float32"] * 3
    assert asked == []
    assert resumed.warnings == []


def test_another_precision_that_is_asked_for_by_name_is_not_overruled_by_the_earlier_run(
    rates: Given,
) -> None:
    rates(AMX)
    began = resolve(load_config("quickstart")).config
    asked_for = load_config("quickstart", ["policy.model.compute=float32"])
    resumed = resolve(asked_for, earlier=began).config
    assert taken(resumed) == ["float32", "bfloat16", "bfloat16"]
    assert config_hash(resumed) != config_hash(began)


def test_models_so_small_that_it_makes_no_difference_are_not_measured(
    monkeypatch: pytest.MonkeyPatch, tied_model: Path
) -> None:
    def find(shape: Shape, *, threads: int) -> Rates:
        raise AssertionError("nothing is to be measured")

    monkeypatch.setattr(module, "find_rates", find)
    speed = speed_of(str(tied_model), on_gpu=False)
    assert (speed.faster, speed.bfloat16_is_slow) == ("float32", False)


def test_the_shape_is_that_of_the_model(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model", hidden=256)
    assert shape_of(str(model)) == Shape(tokens=256, hidden=256, columns=512)


def test_a_model_that_is_not_there_does_not_stop_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_rates", lambda shape, threads: AMX)
    assert speed_of("/no/such/model", on_gpu=False).faster == "bfloat16"


@pytest.mark.parametrize("config", [ModelConfig(model="a"), RolloutConfig()], ids=["model", "rollout"])
def test_what_is_still_auto_is_refused_where_it_would_be_used(config: Any) -> None:
    with pytest.raises(ConfigError, match="still 'auto'") as refused:
        _ = config.dtype
    assert "gad_ray.auto.resolve" in str(refused.value)


@pytest.mark.parametrize(
    ("dtype", "found", "warned"),
    [("bfloat16", AVX2, True), ("bfloat16", AMX, False), ("float32", AVX2, False)],
)
def test_an_exported_critic_that_is_slow_here_is_warned_of_before_it_is_loaded(
    rates: Given,
    tied_model: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    dtype: Any,
    found: Rates,
    warned: bool,
) -> None:
    from gad_ray.config.critic import CriticConfig

    pooling = CriticConfig.model_fields["pooling"].get_default(call_default_factory=True)
    model = ModelConfig(model=str(tied_model), compute=dtype)
    critic = CriticModel.build(model, pooling=pooling, max_tokens=64, seed=0)
    export_critic(critic, tmp_path / "critic", step=0, temperature=1.0)
    rates(found)
    with caplog.at_level(logging.WARNING, logger="gad_ray"):
        warn_of_slow_critic(tmp_path / "critic")
    assert ("12 GFLOP/s in bfloat16, 120 in float32" in caplog.text) is warned


def test_what_is_no_critic_is_left_to_whoever_loads_it(tmp_path: Path) -> None:
    warn_of_slow_critic(tmp_path)
