import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gad_ray.core.policy_loss import (
    Aggregate,
    PolicyLossStats,
    cispo_loss,
    constant_divisor,
    gspo_loss,
    ppo_loss,
    reinforce_loss,
    sequence_mean,
    token_mean,
)
from tests.unit.core.policy_loss_reference import CASES, HIGH, LENGTH, LOW, Array, Batch, pad, reference

EACH = pytest.mark.parametrize(("name", "aggregation"), CASES)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    logprob = st.floats(-12.0, -0.01)

    def row(values: st.SearchStrategy[float], n: int) -> Array:
        return np.asarray(draw(st.lists(values, min_size=n, max_size=n)))

    new = [row(logprob, n) for n in lengths]
    # Ratios within, at and beyond the bounds.
    gaps = [row(st.sampled_from([-1.5, -0.1, 0.0, 0.05, 0.5, 2.0]), n) for n in lengths]
    return Batch(
        new=new,
        old=[values - gap for values, gap in zip(new, gaps, strict=True)],
        weights=[row(st.floats(0.0, 2.0), n) for n in lengths],
        advantages=[draw(st.sampled_from([-1e4, -2.0, 0.0, 0.5, 1e4])) for _ in lengths],
    )


def ours(
    name: str,
    aggregation: str,
    batch: Batch,
    *,
    part: list[int] | None = None,
    padding: int = 0,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, PolicyLossStats, Tensor, Tensor]:
    """Loss, figures, log π and mask of some rows of the batch, with the whole batch's denominators."""
    lengths = [len(r) for r in batch.new]
    rows = list(range(len(lengths))) if part is None else part
    width = max(lengths[i] for i in rows) + padding
    new = pad([batch.new[i] for i in rows], 3.0, width).to(dtype).requires_grad_()
    mask = pad([np.ones(lengths[i]) for i in rows], 0.0, width).bool()
    arguments = {
        "old_logprobs": pad([batch.old[i] for i in rows], -5.0, width).to(dtype),
        "advantages": torch.tensor([batch.advantages[i] for i in rows], dtype=dtype),
        "mask": mask,
        "weights": pad([batch.weights[i] for i in rows], 9.0, width).to(dtype),
    }
    if name == "gspo":
        loss, stats = gspo_loss(new, **arguments, clip_low=LOW, clip_high=HIGH, num_sequences=len(lengths))
        return loss, stats, new, mask
    aggregates: dict[str, Aggregate] = {
        "token_mean": token_mean(sum(lengths)),
        "sequence_mean": sequence_mean(len(lengths)),
        "constant": constant_divisor(len(lengths), LENGTH),
    }
    arguments |= {"num_tokens": sum(lengths), "aggregate": aggregates[aggregation]}
    if name == "reinforce":
        loss, stats = reinforce_loss(new, **arguments)
    else:
        function = ppo_loss if name == "ppo" else cispo_loss
        loss, stats = function(new, **arguments, clip_low=LOW, clip_high=HIGH)
    return loss, stats, new, mask


def gradient_of(loss: Tensor, new: Tensor, mask: Tensor) -> list[Array]:
    (gradient,) = torch.autograd.grad(loss, new)
    assert not gradient[~mask].any()
    return [row[keep].numpy() for row, keep in zip(gradient, mask, strict=True)]


@EACH
@settings(deadline=None)
@given(batch=batches())
def test_value_and_gradient_are_those_of_an_independent_computation(
    name: str, aggregation: str, batch: Batch
):
    loss, _, new, mask = ours(name, aggregation, batch, padding=2)
    value, gradient = reference(name, aggregation, batch)
    assert float(loss.detach()) == pytest.approx(value, rel=1e-9, abs=1e-9)
    for found, wanted in zip(gradient_of(loss, new, mask), gradient, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


@EACH
@settings(max_examples=30, deadline=None)
@given(batch=batches(), seed=st.integers(0, 9))
def test_any_split_and_order_of_the_rows_adds_up_to_the_same(
    name: str, aggregation: str, batch: Batch, seed: int
):
    loss, stats, new, mask = ours(name, aggregation, batch)
    whole = gradient_of(loss, new, mask)
    order = np.random.default_rng(seed).permutation(len(whole)).tolist()
    total = clipped = 0.0
    for part in (order[::2], order[1::2]):
        if part:
            loss_part, stats_part, new, mask = ours(name, aggregation, batch, part=part)
            total += float(loss_part.detach())
            clipped += float(stats_part.clip_fraction)
            for i, found in zip(part, gradient_of(loss_part, new, mask), strict=True):
                np.testing.assert_allclose(found, whole[i], rtol=1e-9, atol=1e-9)
    assert total == pytest.approx(float(loss.detach()), rel=1e-9, abs=1e-9)
    assert clipped == pytest.approx(float(stats.clip_fraction), abs=1e-6)


TWO = {
    # log 2 and log 0.5 as ratios; a row of two tokens and one of a single token.
    "new": torch.tensor([[-1.0, -2.0], [-3.0, 0.0]], dtype=torch.float64),
    "old": torch.tensor([[-1.0 - np.log(2.0), -2.0], [-3.0 + np.log(2.0), 0.0]], dtype=torch.float64),
    "mask": torch.tensor([[True, True], [True, False]]),
}


@pytest.mark.parametrize(
    ("aggregate", "wanted"),
    # Token losses −A·log π: 1, 2 (A = 1) and −6 (A = −2): −3/3, (1.5 − 6)/2, −3/(2·10).
    [(token_mean(3), -1.0), (sequence_mean(2), -2.25), (constant_divisor(2, 10), -0.15)],
)
def test_reinforce_is_that_worked_out_by_hand(aggregate: Aggregate, wanted: float):
    loss, stats = reinforce_loss(
        TWO["new"],
        old_logprobs=TWO["old"],
        advantages=torch.tensor([1.0, -2.0], dtype=torch.float64),
        mask=TWO["mask"],
        num_tokens=3,
        aggregate=aggregate,
    )
    assert float(loss) == pytest.approx(wanted)
    assert float(stats.max_ratio_gap) == pytest.approx(1.0)
    assert float(stats.clip_fraction) == 0.0


def test_cispo_is_that_worked_out_by_hand_and_keeps_the_gradient_of_clipped_tokens():
    new = TWO["new"].clone().requires_grad_()
    loss, stats = cispo_loss(
        new,
        old_logprobs=TWO["old"],
        advantages=torch.tensor([1.0, -2.0], dtype=torch.float64),
        mask=TWO["mask"],
        clip_low=0.2,
        clip_high=0.2,
        num_tokens=3,
    )
    # ρ = 2, 1, 0.5 → 1.2, 1, 0.8: (1.2·1 + 1·2 − 0.8·2·3)/3.
    assert float(loss.detach()) == pytest.approx((1.2 + 2.0 - 4.8) / 3)
    assert float(stats.clip_fraction) == pytest.approx(2 / 3)
    loss.backward()
    assert new.grad is not None
    assert new.grad.flatten().tolist() == pytest.approx([-0.4, -1 / 3, 1.6 / 3, 0.0])


@pytest.mark.parametrize("name", ["ppo", "cispo", "reinforce"])
def test_on_fresh_samples_all_losses_have_the_same_gradient(name: str):
    batch = Batch(
        new=[np.asarray([-1.0, -2.0]), np.asarray([-0.5])],
        old=[np.asarray([-1.0, -2.0]), np.asarray([-0.5])],
        weights=[np.ones(2), np.ones(1)],
        advantages=[2.0, -3.0],
    )
    loss, _, new, mask = ours(name, "token_mean", batch)
    first, second = gradient_of(loss, new, mask)
    assert first.tolist() == pytest.approx([-2 / 3, -2 / 3])
    assert second.tolist() == pytest.approx([1.0])


@st.composite
def extreme_batches(draw: st.DrawFn) -> Batch:
    """Log-probabilities and advantages of ±1e4 beside ordinary ones, ties, and equal old and new ones."""
    lengths = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    logprob = st.sampled_from([-1e4, -90.0, -1.0, 0.0])

    def rows() -> list[Array]:
        return [np.asarray(draw(st.lists(logprob, min_size=n, max_size=n))) for n in lengths]

    return Batch(
        new=rows(),
        old=rows(),
        weights=[np.ones(n) for n in lengths],
        advantages=[draw(st.sampled_from([-1e4, 0.0, 1e4])) for _ in lengths],
    )


@EACH
@settings(max_examples=40, deadline=None)
@given(batch=extreme_batches())
def test_extremes_stay_finite_in_single_precision(name: str, aggregation: str, batch: Batch):
    loss, stats, new, mask = ours(name, aggregation, batch, padding=1, dtype=torch.float32)
    for figure in (loss, stats.clip_fraction, stats.max_ratio_gap):
        assert bool(torch.isfinite(figure))
    for row in gradient_of(loss, new, mask):
        assert np.isfinite(row).all()


@pytest.mark.parametrize("name", ["ppo", "gspo"])
def test_a_token_that_has_become_likelier_than_can_be_told_is_clipped_without_gradient(name: str):
    # ρ = e^9999 in every arithmetic: A = 1 takes the bound 1.3, whose gradient is 0.
    batch = Batch(new=[np.asarray([-1.0])], old=[np.asarray([-1e4])], weights=[np.ones(1)], advantages=[1.0])
    loss, _, new, mask = ours(name, "token_mean", batch, dtype=torch.float32)
    assert float(loss.detach()) == pytest.approx(-1.3)
    assert gradient_of(loss, new, mask)[0].tolist() == [0.0]


def test_cispo_and_reinforce_multiply_every_tokens_loss_by_its_weight():
    # Weights 0.5, 2 and 3 on the token losses of the literals above: 0.5·1.2 + 2·2 − 3·4.8, and 0.5·1 + 2·2 − 3·6.
    arguments = {
        "old_logprobs": TWO["old"],
        "advantages": torch.tensor([1.0, -2.0], dtype=torch.float64),
        "mask": TWO["mask"],
        "weights": torch.tensor([[0.5, 2.0], [3.0, 9.0]], dtype=torch.float64),
        "num_tokens": 1,
    }
    cispo, _ = cispo_loss(TWO["new"], **arguments, clip_low=0.2, clip_high=0.2)
    reinforce, _ = reinforce_loss(TWO["new"], **arguments)
    assert float(cispo) == pytest.approx(0.5 * 1.2 + 2 * 2.0 - 3 * 4.8)
    assert float(reinforce) == pytest.approx(0.5 * 1.0 + 2 * 2.0 - 3 * 6.0)


@pytest.mark.parametrize("name", ["ppo", "cispo"])
@pytest.mark.parametrize(
    ("aggregation", "shares"),
    # Rows of two tokens and of one: 1/3 each; 1/4 and 1/2; 1/14.
    [("token_mean", [1 / 3, 1 / 3]), ("sequence_mean", [1 / 4, 1 / 2]), ("constant", [1 / 14, 1 / 14])],
)
def test_an_aggregation_gives_every_token_the_share_worked_out_by_hand(
    name: str, aggregation: str, shares: list[float]
):
    batch = Batch(
        new=[np.asarray([-1.0, -2.0]), np.asarray([-0.5])],
        old=[np.asarray([-1.0, -2.0]), np.asarray([-0.5])],
        weights=[np.ones(2), np.ones(1)],
        advantages=[2.0, -3.0],
    )
    loss, _, new, mask = ours(name, aggregation, batch)
    first, second = gradient_of(loss, new, mask)
    assert first.tolist() == pytest.approx([-2 * shares[0]] * 2)
    assert second.tolist() == pytest.approx([3 * shares[1]])
