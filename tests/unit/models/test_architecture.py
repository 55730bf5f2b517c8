"""What cannot be trained is refused in the same words by whatever looks at a model and by whatever loads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from gad_ray.config import load_config
from gad_ray.config.models import LoraConfig, ModelConfig
from gad_ray.core.pooling import MeanPooling
from gad_ray.errors import ModelError
from gad_ray.memory_estimate import estimate_memory
from gad_ray.models.critic import CriticModel
from gad_ray.models.policy import PolicyModel
from gad_ray.models.source import describe_model
from tests.tiny import make_tiny_model
from tests.unit.builders import pair
from tests.unit.models.model_directories import (
    adapter_alone,
    bert,
    beside_an_adapter,
    bloom,
    changed,
    check_refused,
    consolidated,
    consolidated_alone,
    found_by_a_dry_run,
    gemma3,
    gpt2,
    in_float8,
    in_shards,
    look,
    more_tokens_than_rows,
    named_by_its_config,
    packed,
    pickled,
    pickled_by_name,
    pointer,
    t5,
    that_ends_in_a_token_without_a_row,
    truncated,
    whose_template_writes_an_image_token,
    with_a_damaged_tokenizer,
    with_a_word_for_its_end,
    with_an_image_token,
    without_a_shard,
    without_a_tokenizer,
    without_a_weight,
    without_an_index,
)

REFUSED = {
    t5: "is an encoder with a decoder",
    bert: "is an encoder here",
    in_float8: r"quantised \(model\.layers\.0\.mlp\.down_proj\.weight is of type F8_E4M3\)",
    packed: r"quantised \(model\.layers\.0\.mlp\.up_proj\.qweight is of type I32\)",
    without_a_weight: r"1 weights are missing, e\.g\. (model\.)?norm\.weight",
    truncated: "is damaged or was not written to its end",
    pointer: "is a pointer of Git LFS",
    pickled: r"its weights are pickled \(pytorch_model\.bin\)",
    pickled_by_name: "transformers_weights = 'weights.bin' is no safetensors file",
    with_a_word_for_its_end: r"eos_token_id = \['</s>'\] is neither a token id nor several",
    that_ends_in_a_token_without_a_row: "token ids up to 4000, and its embedding has 384 rows",
    without_a_tokenizer: "its tokenizer cannot be loaded",
    with_a_damaged_tokenizer: "its tokenizer cannot be loaded",
    whose_template_writes_an_image_token: "token ids up to 384, and its embedding has 384 rows",
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
    "no type": ({"model_type": None}, "names no model_type"),
    "more rows": (
        {"vocab_size": 500},
        r"1 weights have other shapes .* e\.g\. (model\.)?embed_tokens\.weight: \[384, 32\] and not \[500, 32\]",
    ),
    "more layers": ({"num_hidden_layers": 3}, "9 weights are missing"),
    "more heads": ({"num_key_value_heads": 4}, "4 weights have other shapes"),
    "padding": ({"pad_token_id": 9999}, r"cannot be loaded .*pad_token_id = 9999, vocab_size = 384"),
    "no such function": ({"hidden_act": "nosuch"}, r"cannot be loaded by transformers \(KeyError"),
    "a word": (
        {"hidden_size": "wide"},
        "transformers cannot read its config.json: .*'hidden_size': TypeError",
    ),
}


@pytest.mark.parametrize(("make", "words"), REFUSED.items(), ids=lambda part: getattr(part, "__name__", ""))
def test_a_model_that_cannot_be_trained_is_refused_before_and_when_it_is_loaded(
    tmp_path: Path, make: Callable[[Path], Path], words: str
) -> None:
    check_refused(make(tmp_path / "model"), tmp_path, words)


@pytest.mark.parametrize(("settings", "words"), CHANGED.values(), ids=CHANGED)
def test_a_config_that_cannot_be_trained_is_refused_before_and_when_it_is_loaded(
    tmp_path: Path, settings: dict[str, object], words: str
) -> None:
    check_refused(changed(tmp_path / "model", **settings), tmp_path, words)


def test_a_backbone_without_its_head_is_refused_for_a_policy_and_taken_for_a_critic(tmp_path: Path) -> None:
    directory = changed(tmp_path / "model", tie_word_embeddings=False)
    config = ModelConfig(model=str(directory), compute="float32")
    with pytest.raises(ModelError, match=r"1 weights are missing, e\.g\. lm_head\.weight") as refusal:
        PolicyModel.build(config)
    CriticModel.build(config, pooling=MeanPooling(), max_tokens=64, seed=0)
    (problem,) = look(directory, tmp_path).problems
    assert str(problem).startswith("policy.model")
    assert refusal.value.message in str(problem)


@pytest.mark.parametrize(
    "make", [gpt2, gemma3, bloom, in_shards, consolidated, named_by_its_config, with_an_image_token]
)
def test_what_a_dry_run_has_nothing_against_is_loaded(tmp_path: Path, make: Callable[[Path], Path]) -> None:
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
    assert (one.max_positions, one.hidden_size, one.num_layers, one.key_value_width) == (160, 32, 2, 32)
    other = describe_model(str(gemma3(tmp_path / "gemma3"))).architecture
    assert (other.max_positions, other.hidden_size, other.vocab_size) == (320, 32, 400)
    assert other.key_value_width == 16


def test_a_length_beyond_what_a_model_takes_is_refused_under_any_name(tmp_path: Path) -> None:
    told = found_by_a_dry_run(gpt2(tmp_path / "model"), tmp_path, "rollout.max_response_tokens=128")
    assert "make 176 tokens" in told
    assert "takes 160" in told


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
            ]
            + [
                "policy.micro_batch_tokens=768",
                "critic.micro_batch_tokens=768",
                "rollout.batch_sequences=32",
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
