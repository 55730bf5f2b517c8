import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from gad_ray.batch import WeightsSnapshot
from gad_ray.config.models import LoraConfig, OptimizerConfig
from gad_ray.config.policy import KlConfig
from gad_ray.learners.policy import PolicyLearner
from gad_ray.models.arrays import from_numpy
from gad_ray.models.chat import ChatFormat
from gad_ray.models.load import merged_state_dict, plain_model
from gad_ray.rollout.adapters import MergedWeights
from gad_ray.rollout.worker import probe_row
from tests.unit.builders import (
    GamePolicy,
    policy_config,
    policy_learner,
    prompt_batch,
    rollout_batch,
    spread_scores,
    weights_of,
)

MODELS = pytest.mark.parametrize("model", ["tied_model", "untied_model"])
LORA = LoraConfig(rank=4, alpha=8.0)


def trained(directory: Path, **changed: Any) -> GamePolicy:
    learner = policy_learner(policy_config(directory, **changed))
    learner.fit(prompt_batch())
    return learner


def tensors(snapshot: WeightsSnapshot) -> dict[str, torch.Tensor]:
    return {name: from_numpy(array, dtype=snapshot.dtype) for name, array in snapshot.tensors.items()}


def whole(learner: PolicyLearner, snapshot: WeightsSnapshot) -> dict[str, torch.Tensor]:
    """The weights that a rollout worker makes of a snapshot, given the learner's base."""
    if snapshot.adapter_scale is None:
        return tensors(snapshot)
    model: Any = learner.model.lm
    base = merged_state_dict(model, adapters=False)
    merged = MergedWeights(base, snapshot, scale=snapshot.adapter_scale)
    return {name: from_numpy(array, dtype=snapshot.dtype) for name, array in merged.items()}


# -- snapshots ---------------------------------------------------------------------------------------


@MODELS
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_a_snapshot_holds_the_live_weights_under_their_plain_names(
    model: str, compute: str, chat: ChatFormat, request: pytest.FixtureRequest
):
    learner = trained(request.getfixturevalue(model), model={"compute": compute})
    snapshot = learner.snapshot(dtype=compute, probe=probe_row(chat))
    live = learner.model.lm.state_dict()
    assert tensors(snapshot).keys() == live.keys()
    assert "lm_head.weight" in snapshot.tensors
    assert all(torch.equal(tensor, live[name]) for name, tensor in tensors(snapshot).items())
    assert (snapshot.version, snapshot.dtype) == (1, compute)


@MODELS
def test_a_float32_snapshot_of_a_bfloat16_policy_holds_its_master_weights(
    model: str, chat: ChatFormat, request: pytest.FixtureRequest
):
    # Steps that bfloat16 rounds away.
    learner = trained(
        request.getfixturevalue(model), model={"compute": "bfloat16"}, optimizer=OptimizerConfig(lr=1e-5)
    )
    snapshot = tensors(learner.snapshot(dtype="float32", probe=probe_row(chat)))
    masters = {n.removeprefix("master/lm."): t for n, t in learner.state()[0].items() if "master/" in n}
    for name, master in masters.items():
        assert torch.equal(snapshot[name], master), name
    assert torch.equal(
        snapshot["lm_head.weight"],
        masters["lm_head.weight" if model == "untied_model" else "model.embed_tokens.weight"],
    )
    live = learner.model.lm.state_dict()
    assert not torch.equal(snapshot["lm_head.weight"], live["lm_head.weight"].float())


def test_tied_weights_travel_once(tied_model: Path, untied_model: Path, chat: ChatFormat):
    for model, is_tied in ((tied_model, True), (untied_model, False)):
        snapshot = trained(model).snapshot(dtype="float32", probe=probe_row(chat))
        sent: list[pickle.PickleBuffer] = []
        data = pickle.dumps(snapshot.tensors, protocol=5, buffer_callback=sent.append)
        assert sum(buffer.raw().nbytes for buffer in sent) == snapshot.num_bytes
        came = pickle.loads(data, buffers=sent)
        assert (came["lm_head.weight"] is came["model.embed_tokens.weight"]) == is_tied


def test_a_snapshot_with_adapters_is_merged_in_its_own_precision(tied_model: Path, chat: ChatFormat):
    # Adapters so small that bfloat16 would round their effect away.
    learner = trained(
        tied_model, model={"compute": "bfloat16", "lora": LORA}, optimizer=OptimizerConfig(lr=1e-5)
    )
    snapshot = whole(learner, learner.snapshot(dtype="float32", probe=probe_row(chat)))
    assert not any("lora" in name for name in snapshot)
    base: Any = plain_model(learner.model.lm)  # type: ignore[arg-type]
    layer = base.model.layers[0].mlp.up_proj
    wanted = layer.base_layer.weight.detach().float() + layer.get_delta_weight("default").detach().float()
    assert torch.equal(snapshot["model.layers.0.mlp.up_proj.weight"], wanted)
    assert not torch.equal(wanted, layer.base_layer.weight.float())
    assert torch.equal(snapshot["lm_head.weight"], snapshot["model.embed_tokens.weight"])


@MODELS
@pytest.mark.parametrize("lora", [None, LORA])
def test_the_probe_is_what_the_sent_weights_say(
    model: str, lora: LoraConfig | None, chat: ChatFormat, request: pytest.FixtureRequest
):
    directory, probe = request.getfixturevalue(model), probe_row(chat)
    learner = trained(directory, model={"compute": "bfloat16", "lora": lora})
    for dtype, tolerance in (("float32", 1e-5), ("bfloat16", 1e-6)):
        snapshot = learner.snapshot(dtype=dtype, probe=probe)
        fresh: Any = AutoModelForCausalLM.from_pretrained(str(directory), dtype=getattr(torch, dtype))
        fresh.load_state_dict(whole(learner, snapshot))
        ids = torch.from_numpy(probe.ids.astype(np.int64))
        with torch.no_grad():
            log_softmax = fresh(ids[None]).logits[0].float().log_softmax(-1)
        wanted = log_softmax[probe.start - 1 : -1].gather(-1, ids[probe.start :, None])[:, 0]
        np.testing.assert_allclose(snapshot.probe_logprobs, wanted.numpy(), atol=tolerance, rtol=0)
        assert snapshot.probe_logprobs.dtype == np.float32


@MODELS
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_perturbed_snapshot_changes_every_tensor_tied_ones_alike_and_not_the_model(
    model: str, dtype: str, chat: ChatFormat, request: pytest.FixtureRequest
):
    learner, probe = trained(request.getfixturevalue(model)), probe_row(chat)
    before = weights_of(learner)
    plain, moved = (learner.snapshot(dtype=dtype, probe=probe, perturbation=p) for p in (0.0, 0.1))
    for name, tensor in tensors(plain).items():
        change = (tensors(moved)[name].float() - tensor.float()).norm() / tensor.float().norm()
        assert 0.05 < float(change) < 0.2, name
    assert np.abs(moved.probe_logprobs - plain.probe_logprobs).max() > 0.05
    tied = torch.equal(tensors(moved)["lm_head.weight"], tensors(moved)["model.embed_tokens.weight"])
    assert tied == (model == "tied_model")
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(learner).items())


# -- export ------------------------------------------------------------------------------------------


@MODELS
@pytest.mark.parametrize("lora", [None, LORA])
def test_an_exported_policy_is_one_that_transformers_loads_and_says_the_same(
    model: str, lora: LoraConfig | None, tmp_path: Path, request: pytest.FixtureRequest
):
    prompts = prompt_batch()
    learner = trained(
        request.getfixturevalue(model), model={"lora": lora}, optimizer=OptimizerConfig(lr=1e-2)
    )
    learner.export(tmp_path / "policy", dtype=torch.float32)
    assert not any("lora" in name for name in load_file(tmp_path / "policy" / "model.safetensors"))
    again = policy_learner(policy_config(tmp_path / "policy"))
    wanted = learner.teacher_nll(prompts.examples)
    np.testing.assert_allclose(again.teacher_nll(prompts.examples), wanted, atol=1e-4)
    untrained = policy_learner(policy_config(request.getfixturevalue(model)))
    assert np.abs(untrained.teacher_nll(prompts.examples) - wanted).max() > 0.05


def test_an_export_of_a_bfloat16_policy_can_hold_its_master_weights(tied_model: Path, tmp_path: Path):
    learner = trained(tied_model, model={"compute": "bfloat16"}, optimizer=OptimizerConfig(lr=1e-5))
    learner.export(tmp_path / "policy", dtype=torch.float32)
    written = load_file(tmp_path / "policy" / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(written[name], learner.state()[0][f"master/lm.{name}"])


# -- checkpoints -------------------------------------------------------------------------------------


@MODELS
@pytest.mark.parametrize("model_settings", [{}, {"compute": "bfloat16"}, {"lora": LORA}])
def test_a_policy_restored_in_the_game_goes_on_bit_for_bit_with_the_same_reference(
    model: str, model_settings: dict[str, Any], chat: ChatFormat, request: pytest.FixtureRequest
):
    rollouts = rollout_batch(chat, prompt_batch())
    settings = {
        "model": model_settings,
        "kl": KlConfig(coefficient=0.1),
        "optimizer": OptimizerConfig(lr=3e-3, schedule="cosine"),
    }
    config = policy_config(request.getfixturevalue(model), **settings)
    first = policy_learner(config, warmup_lr=1e-2)
    first.fit(prompt_batch())
    first.begin_adversarial()
    for _ in range(2):
        first.play(rollouts, spread_scores(rollouts))
    saved, plain = first.state()
    saved = {name: tensor.clone() for name, tensor in saved.items()}

    second = policy_learner(config, warmup_lr=1e-2)
    second.load_state(saved, plain)
    assert second.version == 3
    for _ in range(2):
        results = [learner.play(rollouts, spread_scores(rollouts)) for learner in (first, second)]
        figures = [{k: v for k, v in r.metrics.items() if "perf" not in k} for r in results]
        assert figures[0] == figures[1]
        assert figures[0]["actor/kl_loss"] > 0.0
    assert_same(second, first)


def test_a_policy_restored_in_its_warm_start_goes_on_bit_for_bit(tied_model: Path, chat: ChatFormat):
    config, prompts = policy_config(tied_model), prompt_batch()
    rollouts = rollout_batch(chat, prompts)
    first = policy_learner(config, warmup_lr=1e-2)
    first.fit(prompts)
    saved, plain = first.state()
    saved = {name: tensor.clone() for name, tensor in saved.items()}
    second = policy_learner(config, warmup_lr=1e-2)
    second.load_state(saved, plain)
    for learner in (first, second):
        learner.fit(prompts)
        learner.begin_adversarial()
        assert learner.play(rollouts, spread_scores(rollouts)).metrics["actor/kl_loss"] == 0.0
    assert_same(second, first)


def assert_same(found: PolicyLearner, wanted: PolicyLearner) -> None:
    weights, others = weights_of(found), weights_of(wanted)
    assert all(torch.equal(weight, others[name]) for name, weight in weights.items())
    states = [learner.state() for learner in (found, wanted)]
    assert states[0][0].keys() == states[1][0].keys()
    assert all(torch.equal(tensor, states[1][0][name]) for name, tensor in states[0][0].items())
    assert states[0][1] == states[1][1]
