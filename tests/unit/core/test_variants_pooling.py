"""Each pooling against a float64 numpy reference, in value and gradient, and against figures made by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from gad_ray.core.pooling import blend_pool, blend_share, dense_scores, last_pool, mean_pool, mix_pool

Array = NDArray[np.float64]


def row_of_values(values: Array, mask: NDArray[np.bool_], name: str, share: float) -> tuple[float, Array]:
    """Score of one row and its gradient, from the formulas alone."""
    places = [i for i, use in enumerate(mask) if use]
    length, last = len(places), places[-1]
    to_mean, to_last = np.zeros(len(values)), np.zeros(len(values))
    to_mean[places] = 1.0 / length
    to_last[last] = 1.0
    weights = {
        "mean": to_mean,
        "last": to_last,
        "blend": (1.0 - share) * to_mean + share * to_last,
        "mix": (0.7 + 0.3 / length) * to_last,
    }[name]
    return float(sum(weights[i] * values[i] for i in places)), weights


def poolings(share: float) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    return {
        "mean": mean_pool,
        "last": last_pool,
        "blend": lambda values, mask: blend_pool(values, mask, share=share),
        "mix": lambda values, mask: mix_pool(values, mask, raw_weight=0.7, norm_weight=0.3),
    }


@st.composite
def batches(draw: st.DrawFn) -> tuple[Array, NDArray[np.bool_]]:
    """Ragged rows with values up to ±1e4, prompts of their own length and padding on the right."""
    bounds = draw(
        st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6), st.integers(0, 3)), min_size=1, max_size=5)
    )
    width = max(sum(bound) for bound in bounds)
    number = st.one_of(st.floats(-1e4, 1e4, width=32), st.sampled_from([0.0, 1.0, -1e4, 1e4]))
    values = draw(
        st.lists(st.lists(number, min_size=width, max_size=width), min_size=len(bounds), max_size=len(bounds))
    )
    mask = np.zeros((len(bounds), width), dtype=np.bool_)
    for row, (prompt, response, _) in enumerate(bounds):
        mask[row, prompt : prompt + response] = True
    return np.asarray(values, dtype=np.float64), mask


@pytest.mark.parametrize("name", ["mean", "last", "blend", "mix"])
@given(batch=batches(), share=st.floats(0.0, 1.0))
@settings(max_examples=60, deadline=None)
def test_value_and_gradient_are_those_of_the_formula(
    name: str, batch: tuple[Array, NDArray[np.bool_]], share: float
) -> None:
    values, mask = batch
    wanted = [row_of_values(v, m, name, share) for v, m in zip(values, mask, strict=True)]
    leaf = torch.tensor(values, dtype=torch.float32, requires_grad=True)
    scores = poolings(share)[name](leaf, torch.from_numpy(mask))
    assert scores.dtype == torch.float32
    np.testing.assert_allclose(
        scores.detach().numpy(), [score for score, _ in wanted], rtol=1e-5, atol=1e-5 * np.abs(values).max()
    )
    scores.sum().backward()
    assert leaf.grad is not None
    np.testing.assert_allclose(leaf.grad.numpy(), [g for _, g in wanted], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["mean", "last", "blend", "mix"])
@given(batch=batches(), extra=st.integers(1, 4), data=st.data())
@settings(max_examples=30, deadline=None)
def test_padding_and_the_order_of_rows_change_nothing(
    name: str, batch: tuple[Array, NDArray[np.bool_]], extra: int, data: st.DataObject
) -> None:
    values, mask = torch.from_numpy(batch[0]).float(), torch.from_numpy(batch[1])
    pool = poolings(0.25)[name]
    scores = pool(values, mask)
    order = data.draw(st.permutations(range(len(values))))
    assert torch.equal(pool(values[order], mask[order]), scores[order])
    padded = torch.nn.functional.pad(values, (0, extra), value=float("nan"))
    longer = torch.nn.functional.pad(mask, (0, extra), value=False)
    torch.testing.assert_close(pool(padded, longer), scores, rtol=1e-6, atol=1e-6 * float(values.abs().max()))


def test_scores_of_one_row_are_those_worked_out_by_hand() -> None:
    # The prompt's 9 is not scored; the mean is (1 + 2 + 6)/3 = 3, the last 6.
    values = torch.tensor([[9.0, 1.0, 2.0, 6.0, 7.0]])
    mask = torch.tensor([[False, True, True, True, False]])
    assert mean_pool(values, mask).tolist() == [3.0]
    assert last_pool(values, mask).tolist() == [6.0]
    assert blend_pool(values, mask, share=0.25).tolist() == [3.75]
    # 0.7 · 6 + 0.3 · 6/3
    assert mix_pool(values, mask, raw_weight=0.7, norm_weight=0.3).tolist() == pytest.approx([4.8])


def test_a_mixed_score_is_the_sum_that_was_seen_in_the_field() -> None:
    # 0.7 · 13.88 + 0.3 · 0.291 = 9.716 + 0.0873, where 0.291 is 13.88 over 47.7 tokens: here over 48.
    values, mask = torch.zeros(1, 48), torch.ones(1, 48, dtype=torch.bool)
    values[0, -1] = 13.88
    assert float(mix_pool(values, mask, raw_weight=0.7, norm_weight=0.3)) == pytest.approx(9.80275, abs=1e-5)


@pytest.mark.parametrize(
    ("updates", "share"),
    [(0, 0.0), (254, 0.0), (255, 1 / 246), (377, 0.5), (499, 245 / 246), (500, 1.0), (9999, 1.0)],
)
def test_the_last_tokens_share_rises_linearly_between_its_bounds(updates: int, share: float) -> None:
    assert blend_share(updates, start=254, end=500) == pytest.approx(share, abs=1e-12)


def test_a_blend_without_a_course_turns_over_at_once() -> None:
    assert [blend_share(updates, start=3, end=3) for updates in (2, 3, 4)] == [0.0, 1.0, 1.0]


@given(batch=batches())
@settings(max_examples=30, deadline=None)
def test_the_dense_form_has_the_score_at_the_last_scored_token_alone(
    batch: tuple[Array, NDArray[np.bool_]],
) -> None:
    values, mask = torch.from_numpy(batch[0]).float(), torch.from_numpy(batch[1])
    scores = mean_pool(values, mask)
    dense = dense_scores(scores, mask)
    assert dense.shape == values.shape
    assert torch.equal(dense.sum(-1), scores)
    for row in range(len(values)):
        last = max(i for i in range(mask.shape[1]) if mask[row, i])
        assert dense[row, last] == scores[row]
        assert int((dense[row] != 0).sum()) <= 1


def test_the_dense_form_lets_the_gradient_through() -> None:
    scores = torch.tensor([2.0, -1.0], requires_grad=True)
    mask = torch.tensor([[True, True, False], [False, True, True]])
    dense = dense_scores(scores, mask)
    assert dense.tolist() == [[0.0, 2.0, 0.0], [0.0, 0.0, -1.0]]
    (dense * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [2.0, 3.0]


@pytest.mark.parametrize("name", ["mean", "last", "blend", "mix"])
def test_bfloat16_values_are_pooled_in_float32(name: str) -> None:
    # 1 and 1 + 1/128 are neighbours in bfloat16: no score between them could be told from either.
    values = torch.tensor([[1.0, 1.0, 1.0078125]], dtype=torch.bfloat16)
    scores = poolings(0.25)[name](values, torch.ones(1, 3, dtype=torch.bool))
    assert scores.dtype == torch.float32
    mean, last = 1.0 + 0.0078125 / 3, 1.0078125
    wanted = {"mean": mean, "last": last, "blend": 0.75 * mean + 0.25 * last, "mix": 0.8 * last}
    assert float(scores) == pytest.approx(wanted[name], abs=1e-7)


def test_the_gradient_of_one_row_is_that_worked_out_by_hand() -> None:
    # Three scored tokens. mean: 1/3 each; last: 1 on the last; blend at 1/4: 1/4 each, and 1/4 more on the last;
    # mix: 0.7 + 0.3/3 on the last.
    mask = torch.tensor([[False, True, True, True, False]])
    wanted = {
        "mean": [0.0, 1 / 3, 1 / 3, 1 / 3, 0.0],
        "last": [0.0, 0.0, 0.0, 1.0, 0.0],
        "blend": [0.0, 0.25, 0.25, 0.5, 0.0],
        "mix": [0.0, 0.0, 0.0, 0.8, 0.0],
    }
    for name, pool in poolings(0.25).items():
        values = torch.tensor([[9.0, 1.0, 2.0, 6.0, 7.0]], requires_grad=True)
        pool(values, mask).sum().backward()
        assert values.grad is not None
        assert values.grad[0].tolist() == pytest.approx(wanted[name])
