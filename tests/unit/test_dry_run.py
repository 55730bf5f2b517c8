"""A dry run finds what would stop a run, all of it at once, and starts nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from gad_ray import dry_run as module
from gad_ray import machine
from gad_ray.auto import Rates
from gad_ray.batch import Message
from gad_ray.cli import main
from gad_ray.config import RunConfig, load_config
from gad_ray.dry_run import DryRun, dry_run
from gad_ray.errors import ConfigError
from gad_ray.learners.collective import LocalCollective
from gad_ray.learners.critic import CriticLearner
from gad_ray.learners.kl_penalty import KlPenalty
from gad_ray.learners.replay import PastResponse, ReplayBuffer
from gad_ray.machine import GIB, Memory
from gad_ray.memory_estimate import estimate_memory
from gad_ray.models.architecture import Architecture
from gad_ray.models.facts import ModelFacts
from gad_ray.models.pairs import TokenRow
from gad_ray.models.policy import PolicyModel
from gad_ray.models.source import describe_model
from tests.tiny import make_tiny_model
from tests.unit.auto_machine import have_rates


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def recipe(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(module, "_CURRENT_CLUSTER", tmp_path / "no cluster")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    rows = tmp_path / "rows.jsonl"
    with rows.open("w") as file:
        for number in range(12):
            row = {"content": f"What is {number} plus 1?", "teacher_response": f"It is {number + 1}."}
            file.write(json.dumps(row) + "\n")
    path = tmp_path / "run.yaml"
    settings = {
        "name": "dry",
        "output_dir": str(tmp_path / "runs"),
        "prompts_per_step": 4,
        "data": {
            "train": [str(rows)],
            "heldout_prompts": 2,
            "max_prompt_tokens": 128,
            "max_teacher_tokens": 64,
        },
        "policy": {"model": {"model": str(model), "compute": "bfloat16"}, "micro_batch_tokens": 16384},
        "critic": {
            "model": {"model": str(model), "compute": "bfloat16"},
            "max_tokens": 256,
            "micro_batch_tokens": 16384,
        },
        "rollout": {
            "engine": "transformers",
            "precision": "bfloat16",
            "responses_per_prompt": 2,
            "max_response_tokens": 32,
            "batch_sequences": 64,
        },
        "stages": {"warmup": {"steps": 1}, "adversarial": {"steps": 1}},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def run(recipe: Path, *overrides: str) -> DryRun:
    return dry_run(load_config(str(recipe), overrides))


def problem_of(found: DryRun) -> str:
    (problem,) = found.problems
    assert problem.exit_code == 2
    return str(problem)


def test_a_run_that_can_start_has_no_problem_and_is_told_in_full(recipe: Path, tmp_path: Path) -> None:
    found = run(recipe)
    assert found.problems == []
    assert found.warnings == []
    assert list(found.sections) == [
        "decided on this machine",
        "models",
        "data",
        "batches",
        "memory, roughly",
    ]
    assert found.sections["data"][0].startswith("10 rows to train on, of 12 read")
    assert (
        "each step: 4 prompts × 2 responses = 8 responses of at most 32 tokens" in found.sections["batches"]
    )
    assert not (tmp_path / "runs").exists()
    assert not list(tmp_path.glob("gad-ray-dry-run-*"))


def test_a_fit_needs_neither_a_critic_nor_both_models_at_a_time(recipe: Path) -> None:
    settings = ["critic.model.model=/no/such/model", "fit.soda.steps=3", "prompts_per_step=2"]
    found = dry_run(load_config(str(recipe), settings), fit="soda")
    assert found.problems == []
    assert list(found.sections) == [
        "decided on this machine",
        "models",
        "data",
        "fit by soda",
        "memory, roughly",
    ]
    assert "6 prompts × 1 response = 6 responses" in found.sections["fit by soda"][0]
    roles = [line.partition(":")[0] for line in found.sections["memory, roughly"]]
    assert roles[:2] == ["policy", "rollout"]
    assert "critic" not in roles
    assert any("no second model" in line for line in found.sections["memory, roughly"])


def test_a_warm_start_is_told_with_the_game(recipe: Path) -> None:
    found = run(recipe, "stages.warm_start=seqkd")
    assert "each step: 4 prompts, cross-entropy on 4 teacher responses" in found.sections["fit by seqkd"][0]
    assert "batches" in found.sections


def test_too_few_prompts_for_one_step_of_a_fit_are_refused(recipe: Path) -> None:
    told = problem_of(dry_run(load_config(str(recipe), ["fit.seqkd.prompts_per_step=16"]), fit="seqkd"))
    assert "fit.seqkd.prompts_per_step = 16, but there are only 10 prompts" in told


def test_all_problems_are_found_at_once(recipe: Path, tmp_path: Path) -> None:
    found = run(recipe, "critic.model.model=/no/such/model", f"data.train=[{tmp_path}/none.jsonl]")
    told = [str(problem) for problem in found.problems]
    assert len(told) == 2
    assert any("critic.model.model" in text and "/no/such/model" in text for text in told)
    assert any("none.jsonl" in text for text in told)


def test_more_tokens_than_the_policy_takes_are_refused(recipe: Path) -> None:
    told = problem_of(run(recipe, "rollout.max_response_tokens=400", "critic.max_tokens=512"))
    assert "rollout.max_response_tokens = 400" in told
    assert "512" in told


def test_more_tokens_than_the_critic_takes_are_refused(recipe: Path) -> None:
    assert "critic.max_tokens = 1024" in problem_of(run(recipe, "critic.max_tokens=1024"))


@pytest.mark.parametrize(("max_tokens", "warned"), [(159, True), (160, True), (161, False)])
def test_responses_that_the_critic_might_not_take_are_warned_of(
    recipe: Path, max_tokens: int, warned: bool
) -> None:
    """Prompts of 128 tokens and responses of 32; tokenised anew, a response can come to more."""
    warnings = run(recipe, f"critic.max_tokens={max_tokens}").warnings
    assert any("make 160 tokens of the policy" in told for told in warnings) is warned


def test_a_teacher_response_that_the_critic_cannot_take_is_named(recipe: Path) -> None:
    found = run(recipe, "critic.max_tokens=10")
    assert "critic.max_tokens = 10, and 12 rows are longer" in problem_of(found)
    assert len(found.warnings) == 1


def test_too_few_prompts_for_one_step_are_refused(recipe: Path) -> None:
    assert "only 10 prompts to train on" in problem_of(run(recipe, "prompts_per_step=16"))


def test_a_template_that_opens_a_thought_is_warned_of(recipe: Path, tmp_path: Path) -> None:
    template = tmp_path / "thinking.jinja"
    text = (Path(module.__file__).parent / "models" / "templates" / "chatml.jinja").read_text(
        encoding="utf-8"
    )
    template.write_text(
        text.replace("<|im_start|>assistant\\n' }}", "<|im_start|>assistant\\n<think>\\n' }}")
    )
    assert "<think>" in template.read_text()
    found = run(recipe, f"policy.model.chat_template={template}")
    assert any("begins inside a thought" in warning for warning in found.warnings)


def test_a_system_column_is_refused_by_the_dry_run_until_it_is_mapped(recipe: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    lines = [json.loads(line) | {"system": "Be brief."} for line in rows.read_text().splitlines()]
    rows.write_text("".join(json.dumps(row) + "\n" for row in lines))
    assert "system stands beside the prompt" in problem_of(run(recipe))
    assert run(recipe, "data.columns.system=system").problems == []


def test_a_tokenizer_without_a_template_is_told_by_its_role(recipe: Path, tmp_path: Path) -> None:
    bare = make_tiny_model(tmp_path / "bare", chat=False)
    found = run(recipe, f"critic.model.model={bare}")
    told = problem_of(found)
    assert told.startswith("critic.model")
    assert "chat_template" in told
    assert run(recipe, f"critic.model.model={bare}", "critic.model.chat_template=plain").problems == []


def test_refill_and_curriculum_are_told_in_words(recipe: Path) -> None:
    refill = "policy.advantage={zero_spread: drop, refill: {max_rounds: 2, oversample: 1.4}}"
    lines = run(recipe, refill, "data.curriculum={name: gap, order: descending, keep: 0.5}").sections[
        "batches"
    ]
    (told,) = [line for line in lines if line.startswith("policy")]
    assert "drawn in their place, up to 2 times a step: at most 16 prompts in all" in told
    assert (
        "curriculum: from the second epoch on by the critic's gap so far, the largest first; an epoch is 5 prompts"
        in lines
    )
    lines = run(recipe, "policy.advantage.zero_spread=drop").sections["batches"]
    assert any("; groups without spread are dropped;" in line for line in lines)


@pytest.mark.parametrize(
    ("curriculum", "told"),
    [
        ("{name: difficulty, order: descending}", "every epoch in descending order of 'difficulty'"),
        (
            "{name: difficulty, order: shuffled, min: 1.0, max: 11.0}",
            "every epoch in random order; only prompts with 'difficulty' from 1 to 11",
        ),
        (
            "{name: spread_first, epochs: 1.6}",
            "in the first 4 steps of the adversarial stage no prompts whose latest group had no spread",
        ),
    ],
)
def test_every_curriculum_is_told_in_words(recipe: Path, tmp_path: Path, curriculum: str, told: str) -> None:
    rows = tmp_path / "rows.jsonl"
    graded = [{**json.loads(line), "difficulty": i} for i, line in enumerate(rows.read_text().splitlines())]
    rows.write_text("".join(json.dumps(row) + "\n" for row in graded))
    found = run(recipe, f"data.curriculum={curriculum}")
    assert found.problems == []
    assert f"curriculum: {told}" in found.sections["batches"]


def test_a_curriculum_that_leaves_too_few_prompts_is_a_problem(recipe: Path) -> None:
    told = problem_of(run(recipe, "data.curriculum={name: gap, keep: 0.3}"))
    assert "data.curriculum.keep = 0.3 leaves 3 of 10 prompts, and a step takes 4" in told


def test_rows_without_the_difficulty_that_a_curriculum_goes_by_are_a_problem(recipe: Path) -> None:
    told = problem_of(run(recipe, "data.curriculum={name: difficulty, column: level}"))
    assert "data.curriculum.column = 'level', and 12 rows have no such number" in told


def test_a_reward_function_that_cannot_be_used_is_a_problem(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rewards_to_try.py").write_text(
        "from gad_ray.core.rewards import reward_function\n"
        "@reward_function\ndef nothing(prompt, response):\n    return None\ndef short(text):\n    return 0.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for function, told in (("nothing", "gave a NoneType"), ("short", "has the arguments (text)")):
        found = run(recipe, f"reward.format=[{{name: custom, function: 'rewards_to_try:{function}'}}]")
        assert told in problem_of(found)


def test_a_function_that_is_not_declared_a_reward_is_imported_and_not_called(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rewards_not_to_try.py").write_text(
        "from pathlib import Path\n"
        "from gad_ray.core.rewards import reward_function\n"
        "def touch(prompt, response):\n    Path(__file__).with_name('touched').touch()\n    return 0.0\n"
        "@reward_function\ndef declared(prompt, response):\n    return touch(prompt, response)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    function = "reward.format=[{{name: custom, function: '{}'}}]"
    for name in ("shutil:move", "rewards_not_to_try:touch"):
        found = run(recipe, function.format(name))
        assert found.problems == []
        (told,) = found.sections["reward functions"]
        assert told.startswith(f"{name}: imported (which runs its module); it takes a prompt and a response")
        assert "not called here" in told
    assert not (tmp_path / "touched").exists()
    assert run(recipe, function.format("rewards_not_to_try:declared")).problems == []
    assert (tmp_path / "touched").exists()


def test_unusable_rows_are_kept_to_be_looked_at(recipe: Path, tmp_path: Path) -> None:
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"content": "no answer"}\n')
    assert run(recipe, "data.max_quarantined_fraction=0.5").problems == []
    (quarantine,) = tmp_path.glob("gad-ray-dry-run-*/quarantine.jsonl")
    assert "no_response" in quarantine.read_text()


def test_an_engine_that_is_not_installed_is_refused(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert "vLLM is not installed" in problem_of(run(recipe, "rollout.engine=vllm"))
    decided = run(recipe, "rollout.engine=auto").sections["decided on this machine"]
    assert "rollout.engine = transformers, which auto comes to: vLLM is not installed" in decided


def test_missing_gpus_stop_a_run_here_but_not_in_a_cluster(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: ())
    assert "ask for 2 GPUs, and this machine has 0" in problem_of(
        run(recipe, "policy.group.gpus_per_rank=2.0")
    )
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    found = run(recipe, "policy.group.gpus_per_rank=2.0")
    assert found.problems == []
    assert any("ask for 2 GPUs" in warning for warning in found.warnings)


def test_too_little_memory_is_warned_of(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: Memory(total=GIB, available=GIB))
    (warning,) = run(recipe).warnings
    assert "this machine has 1" in warning


def test_the_command_exits_0_or_2_and_starts_neither_ray_nor_vllm(recipe: Path) -> None:
    code = (
        "import sys\nfrom gad_ray.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('imported:', *sorted({'ray', 'vllm'} & set(sys.modules)))\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    for overrides, status in ([], 0), (["prompts_per_step=16", "data.train=[none.jsonl]"], 2):
        command = [sys.executable, "-c", code, "train", str(recipe), "--dry-run", *overrides]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, env=environment, check=False
        )
        assert done.returncode == status, done.stderr
        assert done.stdout.splitlines()[-1].strip() == "imported:"
        assert ("there is no file 'none.jsonl'" in done.stderr) == (status == 2)


def small_facts(**changes: object) -> ModelFacts:
    architecture = Architecture(
        name="llama",
        vocab_size=1000,
        max_positions=512,
        hidden_size=64,
        intermediate_size=None,
        num_layers=4,
        key_value_width=64,
        tied_embeddings=True,
    )
    values: dict[str, object] = {
        "name": "a",
        "format": "safetensors",
        "architecture": architecture,
        "num_parameters": 1_000_000,
        "has_chat_template": True,
        "num_bytes": 2_000_000,
    }
    return ModelFacts(**{**values, **changes})  # type: ignore[arg-type]


def parts_of(config: RunConfig) -> dict[str, dict[str, int]]:
    actors = estimate_memory(config, policy=small_facts(), critic=small_facts(), engine="vllm")
    return {actor.role: dict(actor.parts) for actor in actors}


def test_weights_gradients_and_adamw_follow_the_precisions(recipe: Path) -> None:
    mixed = parts_of(load_config(str(recipe)))["critic"]
    assert mixed["weights"] == 1_000_000 * (2 + 4)
    assert mixed["gradients"] == 1_000_000 * (2 + 4)
    assert mixed["AdamW"] == 1_000_000 * 2 * 4
    full = parts_of(load_config(str(recipe), ["critic.model.compute=float32"]))["critic"]
    assert (full["weights"], full["gradients"]) == (4_000_000, 4_000_000)


def test_a_reference_is_counted_only_where_it_is_kept(recipe: Path) -> None:
    assert parts_of(load_config(str(recipe)))["policy"]["reference"] == 2_000_000
    assert "reference" not in parts_of(load_config(str(recipe), ["policy.kl.coefficient=0.0"]))["policy"]


def test_adapters_cost_less_than_all_weights_and_checkpointing_less_than_all_activations(
    recipe: Path,
) -> None:
    plain = parts_of(load_config(str(recipe)))["policy"]
    lora = parts_of(load_config(str(recipe), ["policy.model.lora={rank: 2, alpha: 4.0}"]))["policy"]
    saving = parts_of(load_config(str(recipe), ["policy.model.gradient_checkpointing=true"]))["policy"]
    # q, k, v, o have width 1 + 1 and the three of the feed-forward layers 1 + 3, times rank 2, hidden 64, 4 layers.
    assert lora["AdamW"] == 2 * 4 * (4 * 2 + 3 * 4) * 2 * 64 * 4
    assert lora["AdamW"] < plain["AdamW"]
    assert saving["activations"] < plain["activations"]


def test_a_group_that_exceeds_the_budget_is_counted_whole(recipe: Path) -> None:
    def activations(*overrides: str) -> int:
        return parts_of(load_config(str(recipe), ["critic.micro_batch_tokens=64", *overrides]))["critic"][
            "activations"
        ]

    # The teacher's and two responses of up to 128 + 64 tokens each; the critic takes no more than 100 of them.
    assert activations() == 3 * 192 * 64 * 4 * 17 * 2
    assert activations("critic.max_tokens=100") == 3 * 100 * 64 * 4 * 17 * 2


def test_replicas_and_what_is_on_its_way_to_them_are_counted_where_the_critic_is_served(recipe: Path) -> None:
    assert "serve" not in parts_of(load_config(str(recipe)))
    served = parts_of(load_config(str(recipe), ["serve.enabled=true", "serve.num_replicas=2"]))
    assert (served["serve"]["weights"], served["serve"]["the next ones"]) == (2_000_000, 2_000_000)
    assert served["object store"] == {"published critics, old and new": 4_000_000}


def test_an_endpoint_that_must_not_be_opened_is_a_problem(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GAD_RAY_SERVE_KEYS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    found = run(recipe, "serve.enabled=true", f"serve.port={port}", "serve.publish_every=5")
    assert found.problems == []
    assert found.sections["serving"] == [
        f"the critic at http://127.0.0.1:{port}, a new one every 5 steps",
        "beside the run's actors: 1 × 0.25 cores and 0 GPUs",
    ]
    problem = problem_of(run(recipe, "serve.enabled=true", "serve.host=0.0.0.0"))
    assert problem.startswith("serve.host: 0.0.0.0 can be reached from other machines, and no key is set")


# -- held against models that are there --------------------------------------------------------------------


def real_parts(config: RunConfig, model: Path) -> dict[str, dict[str, int]]:
    facts = describe_model(str(model))
    return {
        actor.role: dict(actor.parts)
        for actor in estimate_memory(config, policy=facts, critic=facts, engine="transformers")
    }


def num_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        ({"compute": "bfloat16"}, 0.01),
        ({"compute": "float32"}, 0.01),
        ({"compute": "bfloat16", "lora": {"rank": 4, "alpha": 8.0}}, 0.3),
    ],
)
def test_the_reference_is_as_large_as_estimated(
    recipe: Path, model: Path, settings: dict[str, Any], tolerance: float
) -> None:
    config = load_config(str(recipe), [f"policy.model={json.dumps({'model': str(model), **settings})}"])
    penalty = KlPenalty(config.policy.kl)
    penalty.begin_stage(PolicyModel.build(config.policy.model).trainable())
    found = num_bytes(penalty.reference.values())
    assert found > 0
    assert real_parts(config, model)["policy"]["reference"] == pytest.approx(found, rel=tolerance)


def test_a_full_replay_buffer_is_as_large_as_estimated(recipe: Path, model: Path) -> None:
    config = load_config(str(recipe), ["critic.replay={size: 200}"])
    assert config.critic.replay is not None
    tracemalloc.start()
    try:
        replay = ReplayBuffer(config.critic.replay, seed=0)
        for step in range(120):
            # The longest texts that the limits allow, at four characters a token; both responses share the prompt.
            prompt, teacher = (f"{step:4}" * 128), (f"{step:4}" * 64)
            messages = (Message(role="user", content=prompt),)
            replay.add(
                PastResponse(messages=messages, teacher=teacher, response=f"{step:3}{i}" * 32, step=step)
                for i in range(2)
            )
        text, _ = replay.state()
        _, found = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(replay) == 200
    # Tensors are not traced.
    estimate = real_parts(config, model)["critic"]["replay"]
    assert found + num_bytes([text]) == pytest.approx(estimate, rel=0.5)


def test_activations_weights_and_gradients_are_about_what_is_estimated(recipe: Path, model: Path) -> None:
    lengths = [50] * 12
    config = load_config(str(recipe), [f"critic.micro_batch_tokens={sum(lengths)}", "critic.max_tokens=50"])
    learner = CriticLearner(
        config.critic, seed=0, total_steps=1, collective=LocalCollective(), max_nonfinite_steps=0
    )
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        scores = learner.model.scores(
            [TokenRow(ids=np.arange(10, 10 + n, dtype=np.int32), start=3) for n in lengths]
        )
    learner.backend.backward(scores.sum())
    weights = {p.data_ptr(): num_bytes([p]) for p in learner.model.parameters()}
    found = {
        "activations": sum(kept.values()) - sum(size for place, size in weights.items() if place in kept),
        "weights": num_bytes(learner.model.parameters())
        + num_bytes(t for name, t in learner.backend.state()[0].items() if name.startswith("master/")),
    }
    parts = real_parts(config, model)["critic"]
    for name, size in found.items():
        assert parts[name] == pytest.approx(size, rel=0.35), name


@pytest.mark.parametrize(("rate", "taken"), [(12.0, "float32"), (870.0, "bfloat16")])
def test_what_auto_comes_to_is_told_shown_and_decides_the_memory(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rate: float, taken: str
) -> None:
    have_rates(monkeypatch, Rates(float32=120.0, bfloat16=rate))
    keys = ("policy.model.compute", "critic.model.compute", "rollout.precision")
    left_open = [f"{key}=auto" for key in keys]
    with pytest.raises(SystemExit) as ended:
        main(["train", str(recipe), *left_open, "--dry-run"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert (
        f"  policy.model.compute = {taken}, which auto comes to: {rate:.0f} GFLOP/s in bfloat16, 120 in"
        in shown
    )
    assert f"precision: {taken}" in shown
    assert (
        "auto"
        not in yaml.safe_load(shown.partition("decided on this machine\n")[0])["policy"]["model"].values()
    )
    found = run(recipe, *left_open)
    same = run(recipe, *(f"{key}={taken}" for key in keys))
    assert found.sections["memory, roughly"] == same.sections["memory, roughly"]


def test_a_slow_precision_is_warned_of_by_the_dry_run(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    have_rates(monkeypatch, Rates(float32=120.0, bfloat16=12.0))
    (warning,) = run(recipe, "policy.model.compute=float32", "rollout.precision=float32").warnings
    assert warning.startswith("critic.model.compute = bfloat16 is slow here: 12 GFLOP/s in bfloat16, 120 in")
    assert warning.endswith("set critic.model.compute=auto, or float32")


def test_a_critic_that_does_not_learn_is_told_and_needs_no_model(recipe: Path) -> None:
    found = run(
        recipe, "critic.model.model=no/such-model", "critic.frozen={name: remote, url: 'http://127.0.0.1:1'}"
    )
    assert not found.problems
    assert any(
        "critic: remote, which scores and does not learn" in line for line in found.sections["batches"]
    )
    assert "weights" not in next(
        line for line in found.sections["memory, roughly"] if line.startswith("critic")
    )


def test_a_critic_that_is_not_there_stands_against_the_run(recipe: Path, tmp_path: Path) -> None:
    found = run(recipe, f"critic.frozen={{name: exported, path: {tmp_path}}}")
    assert any(str(tmp_path) in str(problem) for problem in found.problems)


def test_a_critic_that_does_not_learn_is_not_served_by_its_run(recipe: Path) -> None:
    with pytest.raises(ConfigError, match=r"serve\.enabled goes without critic\.frozen"):
        load_config(str(recipe), ["critic.frozen={name: exported, path: somewhere}", "serve.enabled=true"])
