"""What cannot be trained is refused in the same words by whatever looks at a model and by whatever loads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BloomConfig,
    BloomForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from gad_ray.config import load_config
from gad_ray.config.critic import MeanPooling
from gad_ray.config.models import LoraConfig, ModelConfig
from gad_ray.dry_run import DryRun, dry_run
from gad_ray.errors import ModelError
from gad_ray.memory_estimate import estimate_memory
from gad_ray.models.critic import CriticModel
from gad_ray.models.policy import PolicyModel
from gad_ray.models.source import describe_model
from tests.tiny import make_tiny_model, make_tiny_tokenizer
from tests.unit.builders import PROMPTS, TEACHER, pair

SIZES = {"vocab_size": 400, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def saved(directory: Path, model: PreTrainedModel) -> Path:
    make_tiny_tokenizer(directory)
    model.save_pretrained(str(directory))
    return directory


def gpt2(directory: Path) -> Path:
    return saved(
        directory, GPT2LMHeadModel(GPT2Config(n_positions=96, n_embd=32, n_layer=2, n_head=4, **SIZES))
    )


def gemma3(directory: Path) -> Path:
    """Sizes under ``text_config``, beside those of a vision tower."""
    config = Gemma3Config(
        text_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 320, **SIZES,
        },
        vision_config={
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 28, "patch_size": 14,
        },
        mm_tokens_per_image=1, image_token_index=399, boi_token_index=398, eoi_token_index=397,
    )  # fmt: skip
    return saved(directory, Gemma3ForConditionalGeneration(config))


def bloom(directory: Path) -> Path:
    return saved(directory, BloomForCausalLM(BloomConfig(hidden_size=32, n_layer=2, n_head=4, **SIZES)))


def t5(directory: Path) -> Path:
    return saved(
        directory,
        T5ForConditionalGeneration(T5Config(d_model=32, d_ff=32, num_layers=1, num_heads=2, **SIZES)),
    )


def changed(directory: Path, **settings: object) -> Path:
    path = make_tiny_model(directory) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return directory


def in_shards(directory: Path) -> Path:
    tensors = load_file(make_tiny_model(directory) / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:3], "model-00002-of-00002.safetensors": names[3:]}
    for file, held in parts.items():
        save_file({name: tensors[name] for name in held}, directory / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, held in parts.items() for name in held}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    (directory / "model.safetensors").unlink()
    return directory


def without_a_shard(directory: Path) -> Path:
    (in_shards(directory) / "model-00002-of-00002.safetensors").unlink()
    return directory


def without_an_index(directory: Path) -> Path:
    (in_shards(directory) / "model.safetensors.index.json").unlink()
    return directory


def consolidated(directory: Path) -> Path:
    """The same weights once more, in another program's layout."""
    shutil.copy(make_tiny_model(directory) / "model.safetensors", directory / "consolidated.safetensors")
    return directory


def consolidated_alone(directory: Path) -> Path:
    (consolidated(directory) / "model.safetensors").unlink()
    return directory


def beside_an_adapter(directory: Path) -> Path:
    (make_tiny_model(directory) / "adapter_config.json").write_text("{}")
    return directory


def adapter_alone(directory: Path) -> Path:
    (beside_an_adapter(directory) / "config.json").unlink()
    return directory


def more_tokens_than_rows(directory: Path) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(str(make_tiny_model(directory)))
    tokenizer.add_tokens(["<a new one>"])
    tokenizer.save_pretrained(str(directory))
    return directory


REFUSED = {
    t5: "is an encoder with a decoder",
    without_a_shard: r"1 of its 2 shards are missing: model-00002-of-00002\.safetensors",
    without_an_index: r"neither model\.safetensors nor model\.safetensors\.index\.json",
    consolidated_alone: r"it has consolidated\.safetensors, and neither",
    beside_an_adapter: "holds an adapter beside the model",
    adapter_alone: "is an adapter alone",
    more_tokens_than_rows: "token ids up to 384, and its embedding has 384 rows, for ids up to 383",
}
CHANGED = {
    "quantised": ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"quantised \(gptq\)"),
    "unknown": ({"model_type": "nobody_knows"}, "transformers cannot read its config.json"),
    "code": ({"model_type": "mine", "auto_map": {"AutoModel": "m.M"}}, "needs Python code of its own"),
    "no decoder": ({"model_type": "clip"}, "has no causal language model"),
    "a word": ({"hidden_size": "wide"}, "transformers cannot read its config.json"),
}


def look(directory: Path, tmp_path: Path, *changes: str) -> DryRun:
    data = tmp_path / "rows.jsonl"
    rows = ({"content": f"{PROMPTS[0]} {i}", "teacher_response": TEACHER[0]} for i in range(8))
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    settings = [f"data.train=['{data}']", "data.heldout=[]", "data.heldout_prompts=0", "critic.max_tokens=64"]
    lengths = ["data.max_prompt_tokens=48", "rollout.max_response_tokens=16", "data.max_teacher_tokens=48"]
    models = [f"policy.model.model={directory}", f"critic.model.model={directory}"]
    config = load_config(
        "quickstart", [*settings, *lengths, *models, "rollout.engine=transformers", *changes]
    )
    return dry_run(config)


def found_by_a_dry_run(directory: Path, tmp_path: Path, *changes: str) -> str:
    found = look(directory, tmp_path, *changes)
    return "\n".join([*map(str, found.problems), *found.warnings])


def check_refused(directory: Path, tmp_path: Path, words: str) -> None:
    config = ModelConfig(model=str(directory), compute="float32")
    with pytest.raises(ModelError, match=words):
        PolicyModel.build(config)
    with pytest.raises(ModelError, match=words) as refusal:
        CriticModel.build(config, pooling=MeanPooling(), max_tokens=64, seed=0)
    assert refusal.value.hint
    told = found_by_a_dry_run(directory, tmp_path)
    assert refusal.value.message in told


@pytest.mark.parametrize(("make", "words"), REFUSED.items(), ids=lambda part: getattr(part, "__name__", ""))
def test_a_model_that_cannot_be_trained_is_refused_before_and_when_it_is_loaded(
    tmp_path: Path, make: object, words: str
) -> None:
    assert callable(make)
    check_refused(make(tmp_path / "model"), tmp_path, words)


@pytest.mark.parametrize(("settings", "words"), CHANGED.values(), ids=CHANGED)
def test_a_config_that_cannot_be_trained_is_refused_before_and_when_it_is_loaded(
    tmp_path: Path, settings: dict[str, object], words: str
) -> None:
    check_refused(changed(tmp_path / "model", **settings), tmp_path, words)


@pytest.mark.parametrize("make", [gpt2, gemma3, bloom, in_shards, consolidated])
def test_what_a_dry_run_has_nothing_against_is_loaded(tmp_path: Path, make: object) -> None:
    assert callable(make)
    directory = make(tmp_path / "model")
    assert look(directory, tmp_path).problems == []
    config = ModelConfig(model=str(directory), compute="float32")
    policy = PolicyModel.build(config)
    facts = describe_model(str(directory))
    assert facts.num_parameters == sum(parameter.numel() for parameter in policy.lm.parameters())
    critic = CriticModel.build(config, pooling=MeanPooling(), max_tokens=96, seed=0)
    score = critic.score([pair("Hi", "Yes")], micro_batch_tokens=400)
    assert torch.isfinite(torch.from_numpy(score)).all()


def test_sizes_are_found_under_their_other_names_and_in_the_language_models_own_config(
    tmp_path: Path,
) -> None:
    one = describe_model(str(gpt2(tmp_path / "gpt2"))).architecture
    assert (one.max_positions, one.hidden_size, one.num_layers, one.key_value_width) == (96, 32, 2, 32)
    other = describe_model(str(gemma3(tmp_path / "gemma3"))).architecture
    assert (other.max_positions, other.hidden_size, other.vocab_size) == (320, 32, 400)
    assert other.key_value_width == 16


def test_a_length_beyond_what_a_model_takes_is_refused_under_any_name(tmp_path: Path) -> None:
    told = found_by_a_dry_run(gpt2(tmp_path / "model"), tmp_path, "rollout.max_response_tokens=64")
    assert "make 112 tokens" in told
    assert "takes 96" in told


def test_a_length_that_is_not_stated_is_unknown_and_not_unlimited(tmp_path: Path) -> None:
    directory = bloom(tmp_path / "model")
    assert describe_model(str(directory)).architecture.max_positions is None
    assert "policy: the config of" in (told := found_by_a_dry_run(directory, tmp_path))
    assert "does not say how long a sequence it takes" in told


def test_the_cache_is_as_wide_as_keys_and_values_are(tmp_path: Path) -> None:
    def cache(**settings: int) -> int:
        directory = changed(tmp_path / "model", **settings)
        facts = describe_model(str(directory))
        config = load_config(
            "quickstart",
            [
                f"{key}=float32"
                for key in ("policy.model.compute", "critic.model.compute", "rollout.precision")
            ],
        )
        actors = estimate_memory(config, policy=facts, critic=facts, engine="transformers")
        return next(actor for actor in actors if actor.role == "rollout").parts["key-value cache"]

    assert LlamaConfig().num_key_value_heads == LlamaConfig().num_attention_heads
    grouped, whole = cache(), cache(num_key_value_heads=4)
    assert whole == 2 * grouped
    assert cache(head_dim=16) == 2 * grouped


def test_layers_that_adapters_need_are_looked_for_before_a_run(tmp_path: Path) -> None:
    directory = make_tiny_model(tmp_path / "model")
    told = found_by_a_dry_run(
        directory, tmp_path, "policy.model.lora={rank: 2, alpha: 4, target_modules: [c_attn]}"
    )
    assert "lora.target_modules names 'c_attn', which the model does not have" in told
    config = ModelConfig(
        model=str(directory),
        compute="float32",
        lora=LoraConfig(rank=2, alpha=4.0, target_modules=("c_attn",)),
    )
    with pytest.raises(ModelError, match="names 'c_attn'"):
        PolicyModel.build(config)
