import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from gad_ray.batch import Message
from gad_ray.errors import ModelError
from gad_ray.models.chat import load_chat_format
from gad_ray.models.load import apply_lora, export_hf, load_backbone, load_causal_lm, merged_state_dict
from tests.tiny import make_tiny_model

IDS = torch.tensor([[5, 17, 42, 99, 101, 7]])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


def with_lora(directory: Path, dtype: torch.dtype = torch.float32):
    """A model whose adapters change something."""
    model = apply_lora(load_causal_lm(directory, dtype=dtype), rank=4, alpha=8.0, target_modules="all-linear")
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)
    return model


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def test_the_same_seed_makes_the_same_tiny_model_and_another_another(tmp_path: Path):
    first, second = make_tiny_model(tmp_path / "a", seed=3), make_tiny_model(tmp_path / "b", seed=3)
    other = make_tiny_model(tmp_path / "c", seed=4)
    weights = [
        load_file(d / "model.safetensors")["model.embed_tokens.weight"] for d in (first, second, other)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_causal_lm_is_loaded_in_the_type_asked_for_ready_to_evaluate(tiny: Path):
    model = load_causal_lm(tiny, dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not model.training
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_gradients_are_the_same_with_checkpointing_as_without(tiny: Path):
    gradients = []
    for checkpointing in (False, True):
        model = load_causal_lm(tiny, dtype=torch.float32, gradient_checkpointing=checkpointing).train()
        model(IDS, labels=IDS).loss.backward()
        assert model.is_gradient_checkpointing == checkpointing
        gradients.append(model.get_input_embeddings().weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_backbone_ends_in_the_hidden_states_of_the_whole_model(tiny: Path):
    backbone, model = load_backbone(tiny, dtype=torch.float32), load_causal_lm(tiny, dtype=torch.float32)
    assert not any("lm_head" in name for name, _ in backbone.named_parameters())
    with torch.no_grad():
        hidden = backbone(IDS).last_hidden_state
        assert torch.equal(model.lm_head(hidden), model(IDS).logits)


def test_a_missing_weight_is_named_instead_of_made_up(tmp_path: Path):
    directory = make_tiny_model(tmp_path)
    weights = load_file(directory / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights are missing, e\.g\. .*layers\.1\.mlp\.up_proj\.weight"):
        load_causal_lm(directory, dtype=torch.float32)


def test_a_model_that_brings_code_is_not_run(tmp_path: Path):
    directory = make_tiny_model(tmp_path)
    config = json.loads((directory / "config.json").read_text())
    config |= {
        "model_type": "stranger",
        "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"},
    }
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelError, match="needs Python code of its own"):
        load_causal_lm(directory, dtype=torch.float32)
    assert not (tmp_path / "ran").exists()


def test_new_adapters_change_nothing_and_are_all_that_is_trained(tiny: Path):
    plain = load_causal_lm(tiny, dtype=torch.bfloat16)
    model = apply_lora(
        load_causal_lm(tiny, dtype=torch.bfloat16), rank=2, alpha=4.0, target_modules=("q_proj", "up_proj")
    )
    assert torch.equal(logits(model), logits(plain))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 * 2  # layers, modules, A and B
    assert all("lora_" in name and p.dtype == torch.float32 for name, p in trained.items())


def test_a_layer_to_adapt_that_is_not_there_is_named_with_those_that_are(tiny: Path):
    with pytest.raises(ModelError, match=r"lora\.target_modules names 'qkv_proj'") as refusal:
        apply_lora(load_causal_lm(tiny, dtype=torch.float32), rank=2, alpha=4.0, target_modules=("qkv_proj",))
    assert "q_proj" in str(refusal.value.hint)


def test_a_backbone_can_be_adapted_too(tiny: Path):
    backbone = load_backbone(tiny, dtype=torch.float32)
    model = apply_lora(backbone, rank=2, alpha=4.0, target_modules="all-linear")
    model(input_ids=IDS).last_hidden_state.sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_merged_weights_compute_what_the_adapted_model_computes(tiny: Path):
    model = with_lora(tiny)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    merged = merged_state_dict(model)
    plain = load_causal_lm(tiny, dtype=torch.float32)
    assert (logits(model) - logits(plain)).abs().max() > 0.1  # the adapters do something
    assert set(merged) == set(plain.state_dict())
    assert torch.equal(merged["lm_head.weight"], merged["model.embed_tokens.weight"])
    plain.load_state_dict(merged)
    torch.testing.assert_close(logits(plain), logits(model), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_small_adapters_survive_in_a_bfloat16_model_when_float32_is_asked_for(tiny: Path):
    model = with_lora(tiny, torch.bfloat16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(1e-4)
    name = "model.layers.0.self_attn.q_proj.weight"
    plain = load_causal_lm(tiny, dtype=torch.bfloat16).state_dict()[name].float()
    change = merged_state_dict(model, dtype=torch.float32)[name] - plain
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    torch.testing.assert_close(change, layer.get_delta_weight("default").detach(), rtol=1e-2, atol=1e-7)
    assert (change != 0).float().mean() > 0.99


def test_weights_of_a_model_without_adapters_are_its_own(tiny: Path):
    model = load_causal_lm(tiny, dtype=torch.float32)
    state = merged_state_dict(model)
    assert set(state) == set(model.state_dict())
    assert state["model.norm.weight"].data_ptr() == model.model.norm.weight.data_ptr()
    assert not any(tensor.requires_grad for tensor in state.values())


@pytest.mark.parametrize("tied", [True, False])
def test_an_export_loads_in_transformers_and_computes_the_same(tmp_path: Path, tied: bool):
    directory = make_tiny_model(tmp_path / "model", tied=tied)
    model, chat = with_lora(directory), load_chat_format(directory)
    export_hf(model, chat, tmp_path / "out", torch.float32)
    exported = AutoModelForCausalLM.from_pretrained(str(tmp_path / "out"))
    torch.testing.assert_close(logits(exported), logits(model), rtol=1e-4, atol=1e-4)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert ("lm_head.weight" in stored) is not tied
    assert not any("lora" in name or "base_layer" in name for name in stored)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["architectures"], config["dtype"]) == (["LlamaForCausalLM"], "float32")
    assert (tmp_path / "out" / "generation_config.json").is_file()
    again = load_chat_format(tmp_path / "out")
    messages = [Message(role="user", content="Explain the sky.")]
    assert again.prompt_ids(messages) == chat.prompt_ids(messages)


def test_an_export_has_the_type_asked_for_and_leaves_the_model_as_it_was(tmp_path: Path, tiny: Path):
    model = load_causal_lm(tiny, dtype=torch.float32, gradient_checkpointing=True)
    before = logits(model)
    export_hf(model, tiny, tmp_path / "out", torch.bfloat16)
    assert {t.dtype for t in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["use_cache"] is True
    assert AutoTokenizer.from_pretrained(str(tmp_path / "out")).chat_template
    assert model.config.use_cache is False
    assert model.dtype == torch.float32
    assert torch.equal(logits(model), before)


def test_an_export_replaces_an_older_one_whole(tmp_path: Path, tiny: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "leftover.safetensors").write_bytes(b"old")
    export_hf(load_causal_lm(tiny, dtype=torch.float32), tiny, out, torch.float32)
    assert not (out / "leftover.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_export_that_fails_leaves_the_older_one(tmp_path: Path, tiny: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("old")
    with pytest.raises(ModelError):
        export_hf(load_causal_lm(tiny, dtype=torch.float32), tmp_path / "no-tokenizer", out, torch.float32)
    assert (out / "config.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_adapters_begin_alike_in_every_process_and_leave_the_generator_alone(tiny: Path):
    torch.manual_seed(1)
    first = dict(with_fresh_lora(tiny).named_parameters())
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)
    torch.manual_seed(2)
    second = dict(with_fresh_lora(tiny).named_parameters())
    adapters = [name for name in first if "lora_A" in name]
    assert adapters
    assert all(first[name].std() > 0 for name in adapters)
    assert all(torch.equal(first[name], second[name]) for name in first)


def with_fresh_lora(directory: Path):
    return apply_lora(
        load_causal_lm(directory, dtype=torch.float32), rank=4, alpha=8.0, target_modules="all-linear"
    )
