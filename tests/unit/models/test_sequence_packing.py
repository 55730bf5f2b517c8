"""Rows end to end get the values that they get alone, and a model that would mix them goes on with padding."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaModel, MistralConfig, MistralModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from gad_ray.core.pooling import MeanPooling
from gad_ray.models import sequence_packing as module
from gad_ray.models.chat import ChatFormat, load_chat_format
from gad_ray.models.critic import CriticModel, ValueHead
from gad_ray.models.pairs import TokenRow
from gad_ray.models.sequence_packing import attend_as_before, attend_by_rows, attends_by_rows
from tests.unit.builders import PROMPTS, STUDENT, TEACHER, pair

WORDS = 384
TOLERANCE = {"float32": 1e-5, "bfloat16": 0.05}
PAIRS = [pair(p, r) for p, t, s in zip(PROMPTS, TEACHER, STUDENT, strict=True) for r in (t, *s)]

SMALL: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


def llama() -> Any:
    return LlamaModel(LlamaConfig(**SMALL))


def absolute_positions() -> Any:
    return GPT2Model(GPT2Config(vocab_size=WORDS, n_embd=32, n_layer=3, n_head=4, n_positions=512))


def windowed() -> Any:
    return MistralModel(MistralConfig(**SMALL, sliding_window=8))


@pytest.fixture(scope="module")
def chat(tied_model: Path) -> ChatFormat:
    return load_chat_format(tied_model)


def critic_on(make: Any, chat: ChatFormat, *, dtype: str = "float32") -> CriticModel:
    torch.manual_seed(3)
    backbone = make().to(getattr(torch, dtype))
    head = ValueHead(32, seed=0)
    with torch.no_grad():
        head.weight.mul_(20.0)
    return CriticModel(backbone, head, chat=chat, pooling=MeanPooling(), max_tokens=512, dtype=dtype).eval()


def drawn(seed: int, *lengths: int) -> list[TokenRow]:
    draw = np.random.default_rng(seed)
    return [TokenRow(ids=draw.integers(0, WORDS, n).astype(np.int32), start=n // 2) for n in lengths]


@pytest.fixture(autouse=True)
def the_modules_own_attention() -> Iterator[None]:
    """What a test registers under the name is replaced again by the next model."""
    yield
    attend_by_rows(llama())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("make", [llama, absolute_positions])
def test_rows_end_to_end_score_as_alone(make: Any, dtype: str, chat: ChatFormat):
    rows = drawn(0, 1, 70, 2, 33, 33, 200)
    critic = critic_on(make, chat, dtype=dtype)
    wanted = [float(critic.score_rows([row])[0][0]) for row in rows]
    assert critic.pack().packs
    scores, values = critic.score_rows(rows)
    np.testing.assert_allclose(scores, wanted, atol=TOLERANCE[dtype], rtol=0)
    assert [len(known) for known in values] == [len(row) - row.start for row in rows]
    assert np.ptp(wanted) > 4 * TOLERANCE[dtype], "the scores differ by more than what is allowed"


def test_a_row_changes_by_no_bit_when_all_others_do(chat: ChatFormat):
    critic = critic_on(llama, chat).pack()
    (row,) = drawn(1, 40)
    company = [drawn(seed, 30, 50) for seed in (2, 3)]
    first, second = (critic.score_rows([before, row, behind])[0] for before, behind in company)
    assert first[1] == second[1]
    assert first[0] != second[0]


def test_pairs_of_text_score_as_before(tied_model: Path, chat: ChatFormat):
    critic = critic_on(llama, chat)
    before = critic.score(PAIRS, micro_batch_tokens=400)
    found = critic.pack().score(PAIRS, micro_batch_tokens=400)
    np.testing.assert_allclose(found, before, atol=1e-5, rtol=0)


def test_threads_keep_their_rows_to_themselves(chat: ChatFormat):
    critic = critic_on(llama, chat).pack()
    batches = [drawn(0, 20, 30), drawn(1, 10, 10, 30), drawn(2, 50)]
    wanted = [critic.score_rows(batch)[0] for batch in batches]
    together = Barrier(len(batches))

    def score(batch: list[TokenRow]) -> list[np.ndarray]:
        together.wait(30)
        return [critic.score_rows(batch)[0] for _ in range(20)]

    with ThreadPoolExecutor(len(batches)) as pool:
        for found, right in zip(pool.map(score, batches), wanted, strict=True):
            for scores in found:
                np.testing.assert_allclose(scores, right, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_row_changes_by_no_bit_when_another_shares_its_prompt(dtype: str, chat: ChatFormat):
    critic = critic_on(llama, chat, dtype=dtype).pack()
    one, other = drawn(4, 40, 40)
    same = TokenRow(ids=np.concatenate([one.ids[: one.start], other.ids[: other.start - 3]]), start=one.start)
    alone, together = (critic.score_rows(rows)[0] for rows in ([one], [one, same]))
    assert alone[0] == together[0]
    assert together[0] != together[1]


def test_a_model_with_a_window_is_left_as_it_is(chat: ChatFormat):
    critic = critic_on(windowed, chat)
    rows = drawn(5, 60, 20, 40)
    before = critic.score_rows(rows)[0]
    critic.pack()
    assert not critic.packs
    assert not attends_by_rows(critic.backbone)
    np.testing.assert_allclose(critic.score_rows(rows)[0], before, atol=1e-5, rtol=0)


def mixing(module_: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
    """An attention that takes all rows for one."""
    return sdpa_attention_forward(module_, query, key, value, None, **options)


def failing(*_: Any, **__: Any) -> Any:
    raise TypeError("attend() got an unexpected keyword argument")


@pytest.mark.parametrize(("attend", "told"), [(mixing, "mixes them"), (failing, "does not take them")])
def test_a_model_that_would_mix_rows_or_fails_goes_on_with_padding_and_the_log_says_so(
    attend: Any,
    told: str,
    chat: ChatFormat,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    rows = drawn(6, 60, 20, 40)
    before = critic_on(llama, chat).score_rows(rows)[0]
    critic = critic_on(llama, chat)
    monkeypatch.setattr(module, "_attend", attend)
    with caplog.at_level("WARNING", logger="gad_ray"):
        assert not critic.pack().packs
    assert told in caplog.text
    assert not critic.packs
    np.testing.assert_allclose(critic.score_rows(rows)[0], before, atol=1e-5, rtol=0)


def test_a_model_computes_as_before_when_it_is_taken_back():
    torch.manual_seed(0)
    model = llama().eval()
    ids = torch.arange(30)[None]
    with torch.no_grad():
        before = model(input_ids=ids).last_hidden_state
        assert attend_by_rows(model)
        assert attend_by_rows(model), "again"
        torch.testing.assert_close(model(input_ids=ids).last_hidden_state, before, rtol=0, atol=0)
        attend_as_before(model)
    assert not attends_by_rows(model)
