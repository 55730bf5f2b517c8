"""From a configuration, its data and a run's measured steps to a plan, and how the command tells it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from gad_ray import machine
from gad_ray.auto import Rates
from gad_ray.cli import main
from gad_ray.config import load_config
from gad_ray.config.load import to_yaml
from gad_ray.errors import ConfigError, DataError
from gad_ray.machine import Gpu
from gad_ray.models.architecture import Architecture
from gad_ray.models.facts import ModelFacts
from gad_ray.observability.run_dir import RunDirectory
from gad_ray.planning import from_config
from gad_ray.planning.cost_model import Work
from gad_ray.planning.devices import GPUS, cpu, find_gpu
from gad_ray.planning.from_config import Lengths, cluster_of, gpus_of, size_of, work_of
from gad_ray.planning.measured import Calibration, Measured, read_measured
from gad_ray.planning.plan import Plan, StagePlan, Wishes, make_plan, workers_advice
from tests.tiny import make_tiny_model

LENGTHS = Lengths(prompt=20, response=10, longest=32, teacher=12)
ON_GPUS = ("policy.group.gpus_per_rank=1", "critic.group.gpus_per_rank=1", "rollout.gpus_per_worker=1")
FACTS = ModelFacts(
    name="of eight",
    format="safetensors",
    architecture=Architecture(
        name="llama",
        vocab_size=5,
        max_positions=64,
        hidden_size=4,
        intermediate_size=8,
        num_layers=2,
        key_value_width=2,
        tied_embeddings=False,
    ),
    num_parameters=100,
    has_chat_template=True,
    num_bytes=400,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(autouse=True)
def _known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores of a CPU whose rates are known."""
    monkeypatch.setattr(from_config, "find_rates", lambda _, threads: Rates(float32=threads, bfloat16=2.0))
    monkeypatch.setattr(machine, "usable_cores", lambda: 2.0)
    monkeypatch.setattr(machine, "gpus", lambda: ())


@pytest.fixture
def recipe(model: Path, tmp_path: Path) -> Path:
    rows = tmp_path / "rows.jsonl"
    with rows.open("w") as file:
        for number in range(12):
            row = {"content": f"What is {number} plus 1?", "teacher_response": f"It is {number + 1}."}
            file.write(json.dumps(row) + "\n")
    path = tmp_path / "run.yaml"
    role = {"model": {"model": str(model), "compute": "float32"}}
    settings = {
        "name": "planned",
        "prompts_per_step": 4,
        "data": {"train": [str(rows)], "heldout_prompts": 2, "max_prompt_tokens": 128},
        "policy": {**role, "kl": {"coefficient": 0.0}},
        "critic": role,
        "rollout": {
            "engine": "transformers",
            "precision": "float32",
            "responses_per_prompt": 2,
            "max_response_tokens": 32,
            "batch_sequences": 64,
        },
        "stages": {
            "warmup": {"steps": 3, "policy": "cross_entropy", "critic_only_steps": 1},
            "adversarial": {"epochs": 2},
        },
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def work(recipe: Path, *overrides: str) -> Work:
    return work_of(load_config(str(recipe), overrides), LENGTHS, policy=FACTS, critic=FACTS)


def make_run(
    root: Path, recipe: Path, *overrides: str, factor: float = 1.0, warmup: bool = False
) -> RunDirectory:
    """A run of which nothing is left but its configuration and the times of its steps."""
    root.mkdir(parents=True)
    run = RunDirectory(root=root)
    run.config_yaml.write_text(to_yaml(load_config(str(recipe), overrides)))
    lengths = {
        "prompt_length/mean": 20.0,
        "response_length/mean": 10.0,
        "response_length/max": 32.0,
        "response_length/teacher_mean": 12.0,
    }
    game = {
        "rollout": 2.0,
        "score": 1.0,
        "update_critic": 3.0,
        "reward": 0.5,
        "update_actor": 4.0,
        "sync": 1.0,
    }
    rows: list[Mapping[str, Any]] = [_row(1, "warmup", {"rollout": 9.0, "update_actor": 2.0}, 20.0, lengths)]
    if not warmup:
        times = {part: factor * seconds for part, seconds in game.items()}
        rows += [_row(step, "adversarial", times, factor * 12.0, lengths) for step in (2, 3)]
        rows += [_row(4, "adversarial", times | {"eval": 30.0}, factor * 12.0 + 30, lengths)]
    run.metrics_jsonl.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def _row(
    step: int, stage: str, times: Mapping[str, float], whole: float, lengths: Mapping[str, float]
) -> dict[str, Any]:
    timed = {f"timing_s/{part}": seconds for part, seconds in times.items()}
    return {"step": step, "stage": stage, **timed, "timing_s/step": whole, **lengths}


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return int(left.value.code or 0)


# -- sizes, work and devices ---------------------------------------------------------------------------


def test_an_embedding_is_looked_up_and_an_output_head_is_the_policys_alone() -> None:
    policy, critic = size_of(FACTS, role="policy"), size_of(FACTS, role="critic")
    assert (policy.parameters, policy.backbone, policy.head) == (100, 60, 20)
    assert (critic.parameters, critic.backbone, critic.head) == (100, 60, 0)
    tied = replace(FACTS, architecture=replace(FACTS.architecture, tied_embeddings=True))
    assert (size_of(tied, role="policy").backbone, size_of(tied, role="policy").head) == (80, 20)


def test_fresh_samples_of_one_mini_batch_need_no_pass_but_the_training_one(recipe: Path) -> None:
    assert (work(recipe).policy.trained, work(recipe).policy.scored) == (1, 0)
    assert work(recipe).responses == 8


def test_passes_for_the_old_policy_and_the_reference_are_counted_as_the_learner_makes_them(
    recipe: Path,
) -> None:
    two = work(recipe, "policy.mini_batch_prompts=2")
    assert (two.policy.scored, two.policy.optimizer_steps) == (0.5, 2)
    epochs = work(recipe, "policy.mini_batch_prompts=2", "policy.epochs_per_step=3")
    assert (epochs.policy.trained, epochs.policy.scored, epochs.policy.optimizer_steps) == (3, 1, 6)
    stale = work(recipe, "policy.mini_batch_prompts=2", "max_staleness=1")
    assert stale.policy.scored == 0
    assert work(recipe, "policy.kl.coefficient=0.1").policy.scored == 1
    in_reward = work(recipe, "policy.kl={coefficient: 0.1, place: reward}")
    assert (in_reward.policy.scored, in_reward.penalty_passes) == (0, 2)


def test_the_critics_scoring_pass_is_its_training_pass_unless_its_loss_needs_all_scores_at_once(
    recipe: Path,
) -> None:
    assert (work(recipe).critic.trained, work(recipe).critic.scored) == (1, 0)
    batch_norm = work(recipe, "critic.loss.batch_norm=true", "critic.updates_per_step=2")
    assert (batch_norm.critic.trained, batch_norm.critic.scored) == (2, 2)
    assert work(recipe, "overlap=true").critic.scored == 1
    frozen = work(recipe, "critic.frozen={name: exported, path: somewhere}")
    assert (frozen.critic.trained, frozen.critic.scored) == (0, 1)
    assert work(recipe, "critic.replay={size: 100, ratio: 0.5}").replayed == 8


def test_adapters_train_fewer_weights(recipe: Path) -> None:
    lora = work(recipe, "policy.model.lora={rank: 2, alpha: 4, target_modules: [q_proj]}").policy
    # Two layers, rank 2, 4 numbers wide on either side.
    assert (lora.adapters, lora.trained_weights) == (True, 2 * 2 * 4 * 2)
    assert work(recipe).policy.trained_weights == 100


def test_groups_on_gpus_are_of_the_kind_that_is_named_or_found(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(str(recipe), [*ON_GPUS, "rollout.num_workers=2"])
    size = size_of(FACTS, role="policy")
    cluster = cluster_of(config, gpu="h200", policy=size, critic=size, mfu=None)
    assert gpus_of(config) == 4
    assert cluster.rollout.num == 2
    # So small a model waits for the program.
    assert cluster.rollout.device == replace(GPUS["h200"], train=0.1, score=0.1, prefill=0.1)
    assert cluster_of(config, gpu="h200", policy=size, critic=size, mfu=0.5).policy.device.train == 0.5
    with pytest.raises(ConfigError, match="none to go by"):
        cluster_of(config, gpu=None, policy=size, critic=size, mfu=None)
    monkeypatch.setattr(machine, "gpus", lambda: (Gpu(name="NVIDIA L40S", total=1, free=1),))
    assert cluster_of(config, gpu=None, policy=size, critic=size, mfu=None).policy.device.name == "l40s"


def test_a_gpu_is_found_by_the_name_that_its_driver_gives() -> None:
    assert find_gpu("NVIDIA A100-SXM4-80GB") == GPUS["a100"]
    with pytest.raises(ConfigError, match="did you mean 'h100'"):
        find_gpu("h10")


def test_a_large_model_reaches_what_was_measured_and_a_cpu_is_not_told_apart_by_size() -> None:
    assert GPUS["h100"].for_model(1.5e9) == GPUS["h100"]
    assert cpu(threads=2, rates={"float32": 1.0}).for_model(1e6).train == 0.5


# -- runs -----------------------------------------------------------------------------------------------


def test_a_runs_steps_are_summed_up_by_medians_and_without_evaluations(recipe: Path, tmp_path: Path) -> None:
    found = read_measured(make_run(tmp_path / "a", recipe))
    assert found.parts == {
        "rollout": 2.0,
        "critic": 4.0,
        "reward": 0.5,
        "policy": 4.0,
        "sync": 1.0,
        "other": 0.5,
    }
    assert (found.stage, found.num_steps, found.step, found.fit) == ("adversarial", 3, 12.0, 2.0)
    assert found.lengths == LENGTHS


def test_a_run_that_has_not_come_to_the_game_tells_of_its_warm_up(recipe: Path, tmp_path: Path) -> None:
    found = read_measured(make_run(tmp_path / "a", recipe, warmup=True))
    assert (found.stage, found.parts["rollout"], found.parts["policy"]) == ("warmup", 9.0, 2.0)


def test_a_run_without_a_step_or_without_lengths_is_refused(recipe: Path, tmp_path: Path) -> None:
    started = make_run(tmp_path / "a", recipe)
    started.metrics_jsonl.unlink()
    with pytest.raises(DataError, match="no step"):
        read_measured(started)
    row = _row(1, "adversarial", {"rollout": 1.0}, 2.0, {})
    started.metrics_jsonl.write_text(json.dumps(row))
    with pytest.raises(DataError, match="how long its texts are"):
        read_measured(started)


def measured(recipe: Path, *overrides: str) -> Measured:
    return Measured(
        run="a",
        config=load_config(str(recipe), overrides),
        stage="adversarial",
        num_steps=3,
        lengths=LENGTHS,
        parts={"rollout": 3.0, "reward": 0.5, "policy": 0.0},
        fit=2.0,
        step=4.0,
    )


def test_a_part_is_scaled_and_what_the_model_knows_nothing_of_is_carried_over(recipe: Path) -> None:
    found = Calibration.of(measured(recipe), {"rollout": 2.0, "reward": 0.0, "policy": 5.0}, fit=1.0)
    assert found.factors == {"rollout": 1.5, "fit": 2.0}
    assert found.applied({"rollout": 4.0, "reward": 0.0, "policy": 5.0}) == {
        "rollout": 6.0,
        "reward": 0.5,
        "policy": 5.0,
    }
    assert found.fitted(3.0) == 6.0


@pytest.mark.parametrize("setting", ["overlap=true", "max_staleness=1"])
def test_times_of_parts_that_went_on_together_calibrate_nothing(recipe: Path, setting: str) -> None:
    with pytest.raises(ConfigError, match="go on at"):
        Calibration.of(measured(recipe, setting), {}, fit=1.0)


# -- plans ----------------------------------------------------------------------------------------------


def plan(recipe: Path, *overrides: str, **wishes: Any) -> Plan:
    return make_plan(load_config(str(recipe), overrides), Wishes(**wishes))


def test_a_plan_has_the_stages_of_the_run_with_the_lengths_of_its_data(recipe: Path) -> None:
    found = plan(recipe)
    # 10 prompts, 4 a step.
    assert [(stage.name, stage.num_steps) for stage in found.stages] == [
        ("warm-up", 1),
        ("warm-up, policy fitted", 2),
        ("game", 5),
    ]
    lone, fitted, game = found.stages
    assert lone.parts["policy"] == lone.parts["sync"] == 0
    assert 0 < fitted.parts["policy"] < game.parts["policy"]
    hours = (lone.step + 2 * fitted.step + 5 * game.step) / 3600
    assert found.hours == pytest.approx(hours)
    assert (found.unit, found.unit_hours) == ("core-hours", pytest.approx(2 * hours))
    assert [actor.role for actor in found.memory] == ["policy", "critic", "rollout"]


def test_lengths_can_be_given_where_there_are_no_data(recipe: Path) -> None:
    given = {"prompt": 20.0, "teacher": 12.0}
    missing = "data.train=[/no/such/file.jsonl]"
    found = plan(recipe, missing, **given)
    assert found.hours is None
    assert found.stages[-1].num_steps is None
    assert plan(recipe, missing, rows=100, **given).stages[-1].num_steps == 50
    with pytest.raises(ConfigError, match="--prompt-tokens"):
        plan(recipe, missing)


def test_a_plan_for_the_calibrating_run_itself_is_what_was_measured(recipe: Path, tmp_path: Path) -> None:
    source = read_measured(make_run(tmp_path / "a", recipe))
    found = plan(recipe, calibration=source)
    assert found.stages[-1].parts == pytest.approx(source.parts)
    assert found.stages[-1].step == pytest.approx(12.0)
    assert found.stages[1].parts["policy"] == pytest.approx(2.0)


def test_a_plan_for_more_prompts_follows_from_measured_steps(recipe: Path, tmp_path: Path) -> None:
    source = read_measured(make_run(tmp_path / "a", recipe))
    game = plan(recipe, "prompts_per_step=8", calibration=source).stages[-1].parts
    once = plan(recipe, calibration=source).stages[-1].parts
    assert game["critic"] == pytest.approx(2 * once["critic"], rel=0.01)
    assert (game["sync"], game["reward"], game["other"]) == pytest.approx((1.0, 0.5, 0.5))


def test_roles_on_devices_of_their_own_are_told_and_not_added(recipe: Path) -> None:
    found = plan(recipe, "overlap=true", "max_staleness=1")
    game = found.stages[-1]
    assert game.step < sum(game.parts.values())
    assert any("at the same time" in line for line in found.assumptions)
    assert any("beside training" in line for line in found.assumptions)


def test_an_actor_that_does_not_fit_its_gpu_is_told(recipe: Path) -> None:
    tokens = "critic.micro_batch_tokens=100000000"
    found = plan(recipe, *ON_GPUS, tokens, gpu="l4")
    assert any("critic needs" in line for line in found.assumptions)
    assert found.unit == "GPU-hours"


# -- the command ----------------------------------------------------------------------------------------


def test_the_command_tells_seconds_hours_memory_and_what_was_assumed(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", str(recipe), "prompts_per_step=5") == 0
    shown = capsys.readouterr().out
    for words in ("rollout", "game, s", "core-hours (2)", "policy: 0.", "assumed:", "(the data)"):
        assert words in shown
    assert run("plan", str(recipe), "--prompt-tokens", "20", "--teacher-tokens", "12") == 0
    assert "give --rows" in capsys.readouterr().out


def test_the_json_holds_the_same(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", str(recipe), *ON_GPUS, "--device", "h100", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["unit"] == "GPU-hours"
    assert told["unit_hours"] == pytest.approx(3 * told["hours"])
    assert [stage["num_steps"] for stage in told["stages"]] == [1, 2, 5]


def test_a_plan_is_held_against_a_run_and_fails_beyond_a_fifth(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "runs/a", recipe)
    near = make_run(tmp_path / "runs/near", recipe, factor=1.1)
    make_run(tmp_path / "runs/far", recipe, factor=1.5)
    make_run(tmp_path / "runs/young", recipe, warmup=True)
    arguments = (
        "plan",
        str(near.config_yaml),
        "--runs",
        str(tmp_path / "runs"),
        "--from",
        "a",
        "--rows",
        "10",
    )
    assert run(*arguments, "--check", "near") == 0
    assert "-9.1% against near" in capsys.readouterr().out
    assert run(*arguments, "--check", "far", "--json") == 1
    assert json.loads(capsys.readouterr().out)["check"]["off"] == pytest.approx(12 / 18 - 1)
    assert run(*arguments, "--check", "young") == 2


def test_a_device_for_groups_without_gpus_is_refused_with_what_to_set(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", str(recipe), "--device", "h100") == 2
    assert "gpus_per_rank" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rollout", "workers", "ahead", "told"),
    [
        (14.0, 2, True, "rollout is 70% of the work of a step: 3 more rollout workers would balance it"),
        (
            2.0,
            4,
            True,
            "rollout is 25% of the work of a step: it would be as fast with 2 of the 4 rollout workers",
        ),
        (6.0, 1, True, "rollout is 50% of the work of a step: rollout and training are in balance"),
        (
            12.0,
            1,
            False,
            (
                "rollout is 67% of the work of a step: beside training (max_staleness=1), on devices of its own and with 2 "
                "workers, a step would take 6 s in place of 18"
            ),
        ),
    ],
)
def test_the_split_becomes_advice(rollout: float, workers: int, ahead: bool, told: str) -> None:
    parts = {"rollout": rollout, "critic": 4.0, "policy": 2.0}
    step = max(rollout, 6.0) if ahead else rollout + 6.0
    game = StagePlan(name="game", num_steps=1, parts=parts, step=step)
    assert workers_advice(game, num_workers=workers, ahead=ahead) == told
