import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gad_ray.config.models import LoraConfig, ModelConfig
from gad_ray.core.pooling import MeanPooling
from gad_ray.errors import DataError, ModelError
from gad_ray.models.chat import ChatFormat
from gad_ray.models.critic import CriticModel
from gad_ray.models.critic_export import export_critic, load_critic
from gad_ray.models.pairs import TokenRow
from tests.tiny import make_tiny_model
from tests.unit.builders import PROMPTS, STUDENT, TEACHER, pair, user

PAIRS = [pair(p, r) for p, t, s in zip(PROMPTS, TEACHER, STUDENT, strict=True) for r in (t, *s)]


def build(directory: Path, *, max_tokens: int = 512, seed: int = 0, **model: Any) -> CriticModel:
    config = ModelConfig(**{"model": str(directory), "compute": "float32", **model})
    critic = CriticModel.build(config, pooling=MeanPooling(), max_tokens=max_tokens, seed=seed).eval()
    with torch.no_grad():
        critic.head.weight.mul_(20.0)  # the fresh head's scores are close to 0
    return critic


@pytest.fixture(scope="module")
def critic(tied_model: Path) -> CriticModel:
    return build(tied_model)


def scores(critic: CriticModel, *pairs: Any, budget: int = 100_000) -> np.ndarray:
    return critic.score(pairs, micro_batch_tokens=budget)


# -- scores ------------------------------------------------------------------------------------------


def test_different_texts_get_different_scores(critic: CriticModel):
    found = scores(critic, *PAIRS)
    assert found.dtype == np.float32
    assert len(set(found.tolist())) == len(PAIRS)


@pytest.mark.parametrize("budget", [1, 64, 100_000])
def test_identical_text_scores_a_difference_of_exactly_0_within_a_call(critic: CriticModel, budget: int):
    same = pair(PROMPTS[0], TEACHER[0])
    found = scores(critic, same, *PAIRS, pair(PROMPTS[0], "".join(list(TEACHER[0]))), budget=budget)
    assert found[0] - found[-1] == 0.0
    assert found[0] - found[1] == 0.0


def test_a_score_does_not_depend_on_the_batch_its_padding_or_its_order(critic: CriticModel):
    alone = [float(scores(critic, one)[0]) for one in PAIRS]
    long_neighbour = pair(PROMPTS[1], "And what about you? " * 40)
    for found in (
        scores(critic, *PAIRS),
        scores(critic, *PAIRS, budget=150),
        scores(critic, *PAIRS, long_neighbour)[:-1],
        scores(critic, *reversed(PAIRS))[::-1],
    ):
        np.testing.assert_allclose(found, alone, atol=1e-5, rtol=0)


def test_a_score_is_the_mean_of_the_heads_values_over_the_responses_tokens(
    critic: CriticModel, chat: ChatFormat
):
    one = PAIRS[0]
    prompt, response = chat.prompt_ids(one.messages), chat.response_ids(one.response)
    with torch.no_grad():
        ids = torch.tensor([prompt + response])
        values = critic.backbone(input_ids=ids).last_hidden_state[0].float() @ critic.head.weight
    assert float(scores(critic, one)[0]) == pytest.approx(float(values[len(prompt) :].mean()), abs=1e-6)


def test_what_follows_the_response_does_not_reach_its_score(critic: CriticModel, chat: ChatFormat):
    # The end-of-turn token or padding behind the response: causal attention, and outside the mask.
    row = critic.encoder.encode(PAIRS[0])
    longer = TokenRow(ids=np.concatenate([row.ids, [chat.end_of_turn_id] * 30]).astype(np.int32), start=40)
    with torch.no_grad():
        alone, padded = critic.scores([row])[0], critic.scores([row, longer])[0]
    assert float(padded) == pytest.approx(float(alone), abs=1e-5)


def test_the_end_of_turn_token_is_not_scored(critic: CriticModel, chat: ChatFormat):
    row = critic.encoder.encode(PAIRS[0])
    ended = TokenRow(ids=np.append(row.ids, np.int32(chat.end_of_turn_id)), start=row.start)
    with torch.no_grad():
        with_end, without = (float(critic.scores([r])[0]) for r in (ended, row))
    # It would change the score, if the encoder added it.
    assert with_end != pytest.approx(without, abs=1e-4)
    assert float(scores(critic, PAIRS[0])[0]) == pytest.approx(without, abs=1e-6)


@pytest.mark.parametrize("packs", [True, False])
def test_no_gradient_reaches_the_values_of_prompt_and_padding(
    critic: CriticModel, packs: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(critic, "packing", packs)
    monkeypatch.setattr(critic, "_packs", None)
    assert critic.packs is packs
    rows = [critic.encoder.encode(PAIRS[0]), critic.encoder.encode(pair("Hello!", "Hi"))]
    seen: list[torch.Tensor] = []

    def watch(_module: object, _inputs: object, output: torch.Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    handle = critic.head.register_forward_hook(watch)
    critic.scores(rows).sum().backward()
    handle.remove()
    critic.zero_grad()
    gradient = seen[0].grad
    assert gradient is not None
    counts = [len(row) - row.start for row in rows]
    wanted = torch.cat([torch.full((count,), 1 / count) for count in counts])
    assert torch.allclose(gradient[gradient != 0].sort().values, wanted.sort().values)


def test_an_empty_response_has_a_finite_score_of_its_own(critic: CriticModel, chat: ChatFormat):
    found = scores(critic, pair(PROMPTS[0], ""), *PAIRS)
    with torch.no_grad():
        last = critic.values(torch.tensor([chat.prompt_ids(user(PROMPTS[0]))]))[0, -1]
    assert float(found[0]) == pytest.approx(float(last), abs=1e-5)


def test_spelled_out_control_tokens_change_the_score_as_any_text_does(critic: CriticModel):
    found = scores(critic, pair("Hello!", "Yes"), pair("Hello!", "Yes<|im_end|>"))
    assert found[0] != found[1]


def test_a_pair_above_the_limit_is_refused_and_never_cut(tied_model: Path):
    small = build(tied_model, max_tokens=60)
    with pytest.raises(DataError, match=r"its limit of 60; the prompt begins 'Write a short list"):
        scores(small, pair("Hello!", "Hi"), pair(PROMPTS[1], "a, b, c, d, e, f"))


# -- precision ---------------------------------------------------------------------------------------


def test_head_pooling_and_scores_are_float32_on_a_bfloat16_backbone(tied_model: Path):
    critic = build(tied_model, compute="bfloat16")
    assert {p.dtype for p in critic.backbone.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in critic.head.parameters()} == {torch.float32}
    row = critic.encoder.encode(PAIRS[0])
    assert critic.values(torch.from_numpy(row.ids[None].astype(np.int64))).dtype == torch.float32
    found = torch.from_numpy(scores(critic, *PAIRS))
    rounded = found.bfloat16().float()
    assert bool((found != rounded).all())


def test_a_fresh_head_scores_near_zero_and_differently_by_seed(tied_model: Path):
    config = ModelConfig(model=str(tied_model), compute="float32")
    fresh = [
        CriticModel.build(config, pooling=MeanPooling(), max_tokens=512, seed=s).eval() for s in (0, 0, 1)
    ]
    first, again, other = (scores(critic, *PAIRS) for critic in fresh)
    assert 0.0 < float(np.abs(first).max()) < 1.0
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


# -- export and fingerprint --------------------------------------------------------------------------


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_an_exported_critic_scores_bit_for_bit_as_the_live_one(
    tied_model: Path, tmp_path: Path, compute: str
):
    critic = build(tied_model, compute=compute)
    written = export_critic(critic, tmp_path / "critic", step=7, temperature=5.0)
    loaded = load_critic(tmp_path / "critic")
    assert np.array_equal(scores(loaded, *PAIRS), scores(critic, *PAIRS))
    assert loaded.fingerprint() == written == critic.fingerprint()
    assert loaded.encoder.max_tokens == 512


def test_an_export_with_adapters_holds_them_merged(tied_model: Path, tmp_path: Path):
    lora = LoraConfig(rank=4, alpha=8.0, target_modules=("q_proj", "down_proj"))
    critic = build(tied_model, lora=lora)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in critic.backbone.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)
    export_critic(critic, tmp_path / "critic", step=0, temperature=5.0)
    names = load_file(tmp_path / "critic" / "model.safetensors").keys()
    assert not any("lora" in name for name in names)
    found = scores(load_critic(tmp_path / "critic"), *PAIRS)
    np.testing.assert_allclose(found, scores(critic, *PAIRS), atol=1e-4)
    assert not np.allclose(found, scores(build(tied_model), *PAIRS), atol=1e-2)


def test_an_export_replaces_one_of_the_same_name_and_leaves_nothing_beside_it(
    tied_model: Path, tmp_path: Path
):
    export_critic(build(tied_model), tmp_path / "critic", step=1, temperature=5.0)
    second = build(tied_model, seed=9)
    export_critic(second, tmp_path / "critic", step=2, temperature=5.0)
    assert np.array_equal(scores(load_critic(tmp_path / "critic"), *PAIRS), scores(second, *PAIRS))
    assert [entry.name for entry in tmp_path.iterdir()] == ["critic"]


def flip_weight(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    weights["layers.1.mlp.up_proj.weight"].view(torch.int32)[3, 5] ^= 1
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def flip_head(directory: Path) -> None:
    head = load_file(directory / "head.safetensors")
    head["weight"][3] += 0.001
    save_file(head, directory / "head.safetensors")


def change_template(directory: Path) -> None:
    path = directory / "chat_template.jinja"
    path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")


def change_tokenizer(directory: Path) -> None:
    path = directory / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["model"]["merges"].pop()
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (flip_weight, "weights"),
        (flip_head, "head"),
        (change_template, "template"),
        (change_tokenizer, "tokenizer"),
    ],
)
def test_an_export_that_was_changed_is_refused_naming_what(
    critic: CriticModel, tmp_path: Path, damage: Callable[[Path], None], part: str
):
    export_critic(critic, tmp_path / "critic", step=0, temperature=5.0)
    damage(tmp_path / "critic")
    with pytest.raises(ModelError, match=rf"its {part} are not those it was exported with"):
        load_critic(tmp_path / "critic")


@pytest.mark.parametrize("content", [None, "not json", "[]", '{"format": 99}'])
def test_a_directory_that_is_no_exported_critic_is_refused(
    critic: CriticModel, tmp_path: Path, content: str | None
):
    export_critic(critic, tmp_path / "critic", step=0, temperature=5.0)
    meta = tmp_path / "critic" / "critic.json"
    meta.unlink() if content is None else meta.write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match="critic"):
        load_critic(tmp_path / "critic")


def test_a_fingerprint_changes_with_each_part_by_itself_and_not_otherwise(tied_model: Path, tmp_path: Path):
    first = build(tied_model).fingerprint()
    assert build(tied_model, max_tokens=99).fingerprint() == first

    def changed(critic: CriticModel) -> list[str]:
        found = dataclasses.asdict(critic.fingerprint())
        return [part for part, digest in dataclasses.asdict(first).items() if found[part] != digest]

    critic = build(tied_model)
    with torch.no_grad():
        next(critic.backbone.parameters()).view(-1)[0] += 1e-3
    assert changed(critic) == ["weights"]
    assert changed(build(tied_model, seed=1)) == ["head"]
    template = tmp_path / "other.jinja"
    template.write_text(
        build(tied_model).encoder.chat.template_text.replace("assistant\\n", "assistant: "), encoding="utf-8"
    )
    assert changed(build(tied_model, chat_template=str(template))) == ["template"]
    assert changed(build(tied_model, compute="bfloat16")) == ["weights", "dtype"]
    critic = build(tied_model)
    critic.pooling = MeanPooling.model_construct(name="last")
    assert changed(critic) == ["pooling"]


def test_a_critic_with_another_tokenizer_reads_the_same_text(tmp_path: Path):
    other = build(make_tiny_model(tmp_path / "bracket", style="bracket"))
    found = scores(other, *PAIRS)
    assert bool(np.isfinite(found).all())
    assert found[0] - scores(other, *PAIRS[:3])[0] == pytest.approx(0.0, abs=1e-5)
