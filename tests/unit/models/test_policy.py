from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM

from gad_ray.batch import Example, Ragged
from gad_ray.config.models import LoraConfig, ModelConfig
from gad_ray.models.chat import ChatFormat
from gad_ray.models.policy import PolicyModel, SequenceRow, rows_of, teacher_row
from tests.tiny import make_tiny_tokenizer
from tests.unit.builders import PROMPTS, TEACHER, prompt_batch, rollout_batch, user


def build(directory: Path, **model: Any) -> PolicyModel:
    return PolicyModel.build(ModelConfig(**{"model": str(directory), "compute": "float32", **model})).eval()


def rows_of_teacher(chat: ChatFormat) -> list[SequenceRow]:
    return [teacher_row(chat, example, end_of_turn=True) for example in prompt_batch().examples]


def wanted(policy: PolicyModel, row: SequenceRow) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and entropies out of the whole model's logits, one row by itself."""
    ids = torch.from_numpy(row.ids.astype(np.int64))
    with torch.no_grad():
        log_softmax = policy.lm(input_ids=ids[None]).logits[0].double().log_softmax(-1)
    response = log_softmax[row.start - 1 : -1]
    chosen = response.gather(-1, ids[row.start :, None])[:, 0]
    return chosen.float(), -(response.exp() * response).sum(-1).float()


def calls_whole_model(policy: PolicyModel, row: SequenceRow) -> bool:
    calls: list[None] = []
    handle = policy.lm.register_forward_pre_hook(lambda *_: calls.append(None))
    with torch.no_grad():
        policy.token_logprobs([row])
    handle.remove()
    return bool(calls)


def assert_agrees_with_logits(policy: PolicyModel, rows: list[SequenceRow]) -> None:
    with torch.no_grad():
        out = policy.token_logprobs(rows)
    assert out.mask.sum(-1).tolist() == [row.num_response_tokens for row in rows]
    for i, row in enumerate(rows):
        logprobs, entropy = wanted(policy, row)
        n = row.num_response_tokens
        assert torch.allclose(out.logprobs[i, :n], logprobs, atol=1e-5)
        assert torch.allclose(out.entropy[i, :n], entropy, atol=1e-4)
        assert bool((out.logprobs[i, n:] == 0).all())


@pytest.mark.parametrize("model", ["tied_model", "untied_model"])
def test_log_probabilities_are_those_of_the_models_logits(
    model: str, chat: ChatFormat, request: pytest.FixtureRequest
):
    policy = build(request.getfixturevalue(model))
    rows = rows_of_teacher(chat)
    assert_agrees_with_logits(policy, rows)
    # The head is applied to response positions only.
    assert not calls_whole_model(policy, rows[0])


SIZES = {
    "vocab_size": 384,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def scaled(directory: Path) -> None:
    GraniteForCausalLM(GraniteConfig(**SIZES, logits_scaling=4.0)).save_pretrained(str(directory))


def capped(directory: Path) -> None:
    Gemma2ForCausalLM(Gemma2Config(**SIZES, final_logit_softcapping=2.0)).save_pretrained(str(directory))


@pytest.mark.parametrize("make", [scaled, capped])
def test_a_model_that_scales_or_caps_its_logits_is_called_whole(make, tmp_path: Path, chat: ChatFormat):
    make_tiny_tokenizer(tmp_path)
    torch.manual_seed(0)
    make(tmp_path)
    policy = build(tmp_path)
    rows = rows_of_teacher(chat)
    assert_agrees_with_logits(policy, rows)
    assert calls_whole_model(policy, rows[0])
    decoder, head = policy.lm.get_decoder(), policy.lm.get_output_embeddings()
    ids = torch.from_numpy(rows[0].ids.astype(np.int64))[None]
    with torch.no_grad():
        bare = head(decoder(input_ids=ids).last_hidden_state)
        assert not torch.allclose(bare, policy.lm(input_ids=ids).logits, atol=0.1)
    reference = {name: p.detach().clone() for name, p in policy.trainable().items()}
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.1)
        assert_agrees_with_logits(policy, rows)
        old = policy.token_logprobs(rows, reference=reference).logprobs
    assert not torch.allclose(old, policy.token_logprobs(rows).logprobs, atol=1e-3)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4, alpha=8.0)])
@pytest.mark.parametrize("model", ["tied_model", "untied_model"])
def test_reference_weights_are_used_for_one_pass_only(
    model: str, lora: LoraConfig | None, chat: ChatFormat, request: pytest.FixtureRequest
):
    policy = build(request.getfixturevalue(model), lora=lora)
    rows = rows_of_teacher(chat)
    reference = {name: p.detach().clone() for name, p in policy.trainable().items()}
    with torch.no_grad():
        before = policy.token_logprobs(rows).logprobs
        for parameter in policy.trainable().values():
            parameter.add_(0.05)
        moved = policy.token_logprobs(rows).logprobs
        again = policy.token_logprobs(rows, reference=reference).logprobs
        after = policy.token_logprobs(rows).logprobs
    assert torch.equal(again, before)
    assert torch.equal(after, moved)
    assert not torch.allclose(moved, before, atol=1e-3)


def test_padding_and_neighbours_change_neither_values_nor_gradients(tied_model: Path, chat: ChatFormat):
    policy = build(tied_model)
    rows = rows_of_teacher(chat)
    policy.token_logprobs(rows).logprobs.sum().backward()
    together = {name: p.grad.clone() for name, p in policy.named_parameters()}
    policy.zero_grad()
    for row in rows:
        policy.token_logprobs([row]).logprobs.sum().backward()
    for name, parameter in policy.named_parameters():
        assert torch.allclose(parameter.grad, together[name], rtol=1e-3, atol=1e-4), name


def test_a_response_of_one_token_has_one_log_probability(tied_model: Path, chat: ChatFormat):
    policy = build(tied_model)
    prompt = chat.prompt_ids(user("Hello!"))
    row = SequenceRow(ids=np.asarray([*prompt, 40], dtype=np.int32), start=len(prompt))
    assert_agrees_with_logits(policy, [row])


def test_bfloat16_models_give_float32_log_probabilities(tied_model: Path, chat: ChatFormat):
    out = build(tied_model, compute="bfloat16").token_logprobs(rows_of_teacher(chat))
    assert out.logprobs.dtype == out.entropy.dtype == torch.float32
    assert not torch.equal(out.logprobs, out.logprobs.bfloat16().float())


def test_the_parts_of_the_model_have_one_name_each(tied_model: Path):
    policy = build(tied_model)
    assert all(name.startswith("lm.") for name in policy.state_dict())
    # The tied head is the embedding: trained once.
    assert "lm.lm_head.weight" not in policy.trainable()
    assert "lm.model.embed_tokens.weight" in policy.trainable()


def test_only_adapters_are_trained_with_lora(tied_model: Path):
    names = build(tied_model, lora=LoraConfig(rank=2, alpha=4.0)).trainable().keys()
    assert names
    assert all("lora_" in name for name in names)


def test_a_teachers_row_ends_its_turn_where_that_is_asked_for(chat: ChatFormat):
    example = Example(id="a", messages=user(PROMPTS[0]), teacher_response=TEACHER[0])
    ended, plain = (teacher_row(chat, example, end_of_turn=end) for end in (True, False))
    assert plain.ids[plain.start :].tolist() == chat.response_ids(TEACHER[0])
    assert ended.ids.tolist() == [*plain.ids.tolist(), chat.end_of_turn_id]
    assert ended.num_response_tokens == plain.num_response_tokens + 1


def test_rows_of_are_the_sampled_ids_not_text_tokenised_again(chat: ChatFormat):
    letters = [i for letter in "Hello" for i in chat.response_ids(letter)]
    # Not how the tokenizer would write it.
    assert letters != chat.response_ids("Hello")
    rollouts = rollout_batch(
        chat,
        prompt_batch(1),
        texts=[("Hello",)],
        response_tokens=Ragged.from_rows([letters], np.int32),
        logprobs=Ragged.from_rows([[-1.0] * len(letters)], np.float32),
    )
    (row,) = rows_of(rollouts)
    assert row.ids.tolist() == chat.prompt_ids(user(PROMPTS[0])) + letters
    assert row.ids[row.start :].tolist() == letters
