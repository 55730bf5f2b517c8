"""Facts of many kinds of models against the models themselves, and what a run checks before it starts."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    FalconConfig,
    Gemma3TextConfig,
    GPT2Config,
    GPTBigCodeConfig,
    LlamaConfig,
    OpenAIGPTConfig,
    OPTConfig,
    PreTrainedConfig,
    RecurrentGemmaConfig,
)

from gad_ray.batch import Example, Message
from gad_ray.config import load_config
from gad_ray.config.models import LoraConfig, ModelConfig
from gad_ray.core.pooling import MeanPooling
from gad_ray.errors import ConfigError, DataError, ModelError
from gad_ray.models.architecture import Architecture, read_architecture
from gad_ray.models.checks import check_lengths
from gad_ray.models.critic import CriticModel
from gad_ray.models.files import find_weights
from gad_ray.models.load import load_backbone, load_causal_lm
from gad_ray.models.policy import PolicyModel
from gad_ray.models.source import describe_model, resolve_model
from gad_ray.rollout.transformers_engine import TransformersEngine
from gad_ray.rollout.worker import probe_row
from tests.tiny import make_tiny_model
from tests.unit.builders import pair
from tests.unit.models.model_directories import SIZES, bloom, changed, gpt2, in_shards, look, saved

LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    **SIZES,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "every head its own keys": GPT2Config(n_positions=96, n_embd=32, n_layer=2, n_head=4, **SIZES),
    "grouped": LlamaConfig(num_key_value_heads=2, **LLAMA),
    "heads of another width": Gemma3TextConfig(num_key_value_heads=1, head_dim=24, **LLAMA),
    "one for all, Falcon": FalconConfig(multi_query=True, **LLAMA),
    "one for all, BigCode": GPTBigCodeConfig(n_positions=96, n_embd=32, n_layer=2, n_head=4, **SIZES),
    "latent": DeepseekV3Config(
        num_key_value_heads=4, kv_lora_rank=8, q_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=4,
        v_head_dim=10, first_k_dense_replace=2, **LLAMA,
    ),
}  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_keys_and_values_are_as_wide_as_those_that_a_model_keeps(
    tmp_path: Path, config: PreTrainedConfig
) -> None:
    config.save_pretrained(str(tmp_path))
    facts = read_architecture(tmp_path)
    model: Any = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        layers = model(input_ids=torch.ones(1, 3, dtype=torch.int64), use_cache=True).past_key_values.layers
    numbers = sum(part.numel() for layer in layers for part in (layer.keys, layer.values)) / 3
    assert facts.key_value_width is not None
    assert numbers == 2 * facts.key_value_width * len(layers)
    assert facts.num_layers == len(layers)


def test_sizes_that_differ_from_layer_to_layer_are_those_of_the_widest(tmp_path: Path) -> None:
    from transformers import Gemma4TextConfig

    Gemma4TextConfig().save_pretrained(str(tmp_path))
    facts = read_architecture(tmp_path)
    assert facts.hidden_size == Gemma4TextConfig().hidden_size
    assert facts.key_value_width == 4 * 512


def test_what_is_not_known_is_none_and_the_dry_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gad_ray.models import facts as module

    def without_width(directory: Path) -> Architecture:
        return replace(read_architecture(directory), key_value_width=None)

    monkeypatch.setattr(module, "read_architecture", without_width)
    found = look(make_tiny_model(tmp_path / "model"), tmp_path)
    assert found.problems == []
    assert "how wide its keys and values are is unknown" in "\n".join(found.warnings)


def test_loading_shapes_alone_reads_no_weight_and_leaves_the_model_on_no_device(tmp_path: Path) -> None:
    directory = in_shards(tmp_path)
    for load in (load_causal_lm, load_backbone):
        model: Any = load(directory, dtype=torch.float32, on_meta=True, gradient_checkpointing=True)
        assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_layers_that_the_config_leaves_out_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = changed(tmp_path / "model", num_hidden_layers=1)
    with caplog.at_level(logging.WARNING):
        load_backbone(directory, dtype=torch.float32)
    assert "9 weights in" in caplog.text
    assert "have no place in the model" in caplog.text


@pytest.mark.parametrize(
    "config",
    [
        OpenAIGPTConfig(n_positions=160, n_embd=32, n_layer=1, n_head=2, **SIZES),
        RecurrentGemmaConfig(lru_width=32, num_key_value_heads=2, **LLAMA),
    ],
    ids=["takes none", "gives none"],
)
def test_a_model_that_keeps_no_cache_is_refused_where_transformers_generates(
    tmp_path: Path, config: PreTrainedConfig
) -> None:
    directory = saved(tmp_path / "model", AutoModelForCausalLM.from_config(config))
    with pytest.raises(ModelError, match="keeps no cache of keys and values") as refusal:
        TransformersEngine(directory, precision="float32", stop_token_ids=[2], batch_sequences=1)
    (problem,) = look(directory, tmp_path).problems
    assert refusal.value.message in str(problem)


def test_a_model_whose_last_layer_is_narrower_than_the_others_makes_a_critic(tmp_path: Path) -> None:
    config = OPTConfig(
        hidden_size=32,
        word_embed_proj_dim=16,
        ffn_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        **SIZES,
    )
    directory = saved(tmp_path / "model", AutoModelForCausalLM.from_config(config))
    assert look(directory, tmp_path).problems == []
    critic = CriticModel.build(
        ModelConfig(model=str(directory), compute="float32"), pooling=MeanPooling(), max_tokens=96, seed=0
    )
    assert np.isfinite(critic.score([pair("Hi", "Yes")], micro_batch_tokens=400)).all()


def test_adapters_are_tried_before_a_run(tmp_path: Path) -> None:
    directory = make_tiny_model(tmp_path / "model")
    lora = LoraConfig(rank=2, alpha=4.0, target_modules=("q_proj", "v_proj"))
    assert look(directory, tmp_path, f"policy.model.lora={json.dumps(lora.model_dump())}").problems == []
    PolicyModel.build(ModelConfig(model=str(directory), compute="float32", lora=lora))


# -- lengths -----------------------------------------------------------------------------------------------


def run_of(directory: Path, *changes: str) -> Any:
    settings = ["critic.max_tokens=64", "data.max_prompt_tokens=48", "rollout.max_response_tokens=16"]
    models = [f"{role}.model.model={directory}" for role in ("policy", "critic")]
    return load_config("quickstart", [*settings, "data.max_teacher_tokens=48", *models, *changes])


def example(teacher: str) -> Example:
    return Example(id="a", messages=(Message(role="user", content="Hi"),), teacher_response=teacher)


def test_a_run_refuses_the_lengths_that_its_dry_run_refuses(tmp_path: Path) -> None:
    directory = gpt2(tmp_path / "model")
    check_lengths(run_of(directory), [example("Yes.")], has_critic=True)
    for change in ("rollout.max_response_tokens=128", "critic.max_tokens=200"):
        with pytest.raises(ConfigError, match="takes 160") as refusal:
            check_lengths(run_of(directory, change), [example("Yes.")], has_critic=True)
        told = [problem.message for problem in look(directory, tmp_path, change).problems]
        assert refusal.value.message in told
    check_lengths(run_of(directory, "critic.max_tokens=200"), [example("Yes.")], has_critic=False)


def test_a_teachers_text_that_the_policy_cannot_take_is_refused_before_a_run(tmp_path: Path) -> None:
    directory = gpt2(tmp_path / "model")
    changes = ["data.max_teacher_tokens=400", "critic.max_tokens=96"]
    with pytest.raises(DataError, match="1 rows are longer with the teacher's response than the 160 tokens"):
        check_lengths(run_of(directory, *changes), [example("zq" * 100)], has_critic=True)
    assert look(directory, tmp_path, *changes).problems == []


def test_a_policy_that_cannot_take_the_proof_of_new_weights_is_refused_before_a_run(tmp_path: Path) -> None:
    config = GPT2Config(n_positions=80, n_embd=32, n_layer=1, n_head=4, **SIZES)
    directory = saved(tmp_path / "model", AutoModelForCausalLM.from_config(config))
    rows = [example("Yes.")]
    with pytest.raises(ModelError, match="takes 80 tokens, and the text by which rollout") as refusal:
        check_lengths(run_of(directory), rows, has_critic=True, probe=probe_row)
    assert refusal.value.message in [problem.message for problem in look(directory, tmp_path).problems]


def test_a_run_says_that_a_length_is_unknown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_lengths(run_of(bloom(tmp_path / "model")), [example("Yes.")], has_critic=True)
    assert "policy: the config of" in caplog.text
    assert "critic: the config of" in caplog.text


# -- other sources -----------------------------------------------------------------------------------------


def gguf(path: Path, architecture: str = "llama", *, num_tokens: int = 12, **values: object) -> Path:
    from gguf import GGUFWriter

    writer = GGUFWriter(str(path), architecture)
    writer.add_token_list([f"t{i}" for i in range(num_tokens)])
    writer.add_embedding_length(8)
    for key, value in values.items():
        name = key.replace("_", ".", 1)
        add = writer.add_string if isinstance(value, str) else writer.add_uint16
        add(name, value)  # type: ignore[arg-type]
    writer.add_tensor("token_embd.weight", np.zeros((12, 8), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("architecture", "values", "words"),
    [
        ("llama", {"general_type": "adapter"}, "holds no model: its general.type is 'adapter'"),
        ("llama", {"split_count": 3}, "is one of 3 files of a model"),
        ("t5", {}, "is an encoder with a decoder"),
        ("nobody", {}, "cannot convert GGUF files of the architecture 'nobody'"),
        ("llama", {"num_tokens": 14}, "token ids up to 13, and its embedding has 12 rows"),
    ],
)
def test_a_gguf_that_cannot_be_converted_is_refused_by_both(
    tmp_path: Path, architecture: str, values: dict[str, Any], words: str
) -> None:
    path = gguf(tmp_path / "model.gguf", architecture, **values)
    with pytest.raises(ModelError, match=words) as refusal:
        resolve_model(str(path), cache_dir=tmp_path / "cache")
    assert refusal.value.hint
    told = [problem.message for problem in look(path, tmp_path).problems]
    assert told.count(refusal.value.message) == 2


def test_a_gguf_with_a_row_for_each_token_is_described(tmp_path: Path) -> None:
    facts = describe_model(str(gguf(tmp_path / "model.gguf")), cache_dir=tmp_path / "cache")
    assert facts.architecture.vocab_size == 12
    assert facts.architecture.max_positions is None


def test_an_adapter_on_the_hub_is_refused_as_one_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    (tmp_path / "adapter_config.json").write_text("{}")

    def snapshot(name: str, *, local_files_only: bool = False, **_: object) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("not here yet")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    for use in (describe_model, resolve_model):
        with pytest.raises(ModelError, match="is an adapter alone"):
            use("some-owner/some-model")


def test_weights_of_other_programs_beside_a_model_are_not_its_weights(tmp_path: Path) -> None:
    directory = in_shards(tmp_path / "model")
    (directory / "original").mkdir()
    for name in ("consolidated.safetensors", "adapter_model.safetensors", "original/model.safetensors"):
        (directory / name).write_bytes(b"not looked at")
    assert [file.name for file in find_weights(directory)] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
