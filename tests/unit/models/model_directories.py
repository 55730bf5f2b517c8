"""Small model directories, sound and faulty, and what a dry run and training say of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertLMHeadModel,
    BloomConfig,
    BloomForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from gad_ray.config import load_config
from gad_ray.config.models import ModelConfig
from gad_ray.core.pooling import MeanPooling
from gad_ray.dry_run import DryRun, dry_run
from gad_ray.errors import ModelError
from gad_ray.models.critic import CriticModel
from gad_ray.models.policy import PolicyModel
from tests.tiny import make_tiny_model, make_tiny_tokenizer
from tests.unit.builders import PROMPTS, TEACHER

SIZES: dict[str, Any] = {"vocab_size": 400, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def saved(directory: Path, model: PreTrainedModel) -> Path:
    make_tiny_tokenizer(directory)
    model.save_pretrained(str(directory))
    return directory


def gpt2(directory: Path) -> Path:
    return saved(
        directory, GPT2LMHeadModel(GPT2Config(n_positions=160, n_embd=32, n_layer=2, n_head=4, **SIZES))
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


def bert(directory: Path) -> Path:
    config = BertConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, **SIZES
    )
    return saved(directory, BertLMHeadModel(config))


def rewritten(directory: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    """A tiny model whose weights were changed in its file."""
    file = make_tiny_model(directory) / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return directory


def in_float8(directory: Path) -> Path:
    return rewritten(
        directory,
        lambda tensors: {
            name: tensor.to(torch.float8_e4m3fn) if "mlp" in name else tensor
            for name, tensor in tensors.items()
        },
    )


def packed(directory: Path) -> Path:
    """As GPTQ and AWQ store weights, with no word of it in config.json."""
    name = "model.layers.0.mlp.up_proj.weight"

    def pack(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        del tensors[name]
        return {**tensors, name.replace("weight", "qweight"): torch.zeros(4, 64, dtype=torch.int32)}

    return rewritten(directory, pack)


def without_a_weight(directory: Path) -> Path:
    """Its index names a weight that is not in the shard."""
    shard = in_shards(directory) / "model-00002-of-00002.safetensors"
    tensors = load_file(shard)
    del tensors["model.norm.weight"]
    save_file(tensors, shard, metadata={"format": "pt"})
    return directory


def truncated(directory: Path) -> Path:
    file = make_tiny_model(directory) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    return directory


def pointer(directory: Path) -> Path:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123456\n"
    (make_tiny_model(directory) / "model.safetensors").write_text(text)
    return directory


def pickled(directory: Path) -> Path:
    (make_tiny_model(directory) / "model.safetensors").rename(directory / "pytorch_model.bin")
    return directory


def pickled_by_name(directory: Path) -> Path:
    """Its config names a pickle, which transformers would take before the safetensors beside it."""
    (changed(directory, transformers_weights="weights.bin") / "weights.bin").write_bytes(b"a pickle")
    return directory


def named_by_its_config(directory: Path) -> Path:
    (changed(directory, transformers_weights="w.safetensors") / "model.safetensors").rename(
        directory / "w.safetensors"
    )
    return directory


def with_a_word_for_its_end(directory: Path) -> Path:
    (make_tiny_model(directory) / "generation_config.json").write_text('{"eos_token_id": ["</s>"]}')
    return directory


def that_ends_in_a_token_without_a_row(directory: Path) -> Path:
    """Neither template nor tokenizer say what ends a response, and the generation config names an id of nothing."""
    path = make_tiny_model(directory) / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "eos_token": None}))
    (directory / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    (directory / "generation_config.json").write_text('{"eos_token_id": 4000}')
    return directory


def without_a_tokenizer(directory: Path) -> Path:
    for file in make_tiny_model(directory).glob("tokenizer*"):
        file.unlink()
    return directory


def with_a_damaged_tokenizer(directory: Path) -> Path:
    (make_tiny_model(directory) / "tokenizer.json").write_text('{"version": "1.0"}')
    return directory


def with_an_image_token(directory: Path) -> Path:
    """As Gemma 3 1B: a control token for images has no row in the embedding, and nothing comes to it."""
    tokenizer = AutoTokenizer.from_pretrained(str(make_tiny_model(directory)))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(str(directory))
    return directory


def whose_template_writes_an_image_token(directory: Path) -> Path:
    template = with_an_image_token(directory) / "chat_template.jinja"
    template.write_text("{{ '<image>' }}" + template.read_text())
    return directory


def look(directory: Path, tmp_path: Path, *changes: str) -> DryRun:
    data = tmp_path / "rows.jsonl"
    rows = ({"content": f"{PROMPTS[0]} {i}", "teacher_response": TEACHER[0]} for i in range(8))
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    settings = [f"data.train=['{data}']", "data.heldout=[]", "data.heldout_prompts=0", "critic.max_tokens=64"]
    lengths = ["data.max_prompt_tokens=48", "rollout.max_response_tokens=16", "data.max_teacher_tokens=48"]
    models = [f"{role}.model.model={directory}" for role in ("policy", "critic")]
    # Each model's own template, and not the recipe's.
    models += [f"{role}.model.chat_template=null" for role in ("policy", "critic")]
    config = load_config(
        "quickstart", [*settings, *lengths, *models, "rollout.engine=transformers", *changes]
    )
    return dry_run(config)


def found_by_a_dry_run(directory: Path, tmp_path: Path, *changes: str) -> str:
    found = look(directory, tmp_path, *changes)
    return "\n".join([*map(str, found.problems), *found.warnings])


def check_refused(directory: Path, tmp_path: Path, words: str) -> None:
    config = ModelConfig(model=str(directory), compute="float32")
    with pytest.raises(ModelError, match=words) as by_policy:
        PolicyModel.build(config)
    with pytest.raises(ModelError, match=words) as by_critic:
        CriticModel.build(config, pooling=MeanPooling(), max_tokens=64, seed=0)
    told = [str(problem) for problem in look(directory, tmp_path).problems]
    for role, refusal in {"policy": by_policy.value, "critic": by_critic.value}.items():
        assert refusal.hint
        assert any(problem.startswith(f"{role}.model") and refusal.message in problem for problem in told)
