"""Every loss of the critic against a float64 numpy reference: value by formula, gradient by derivation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from gad_ray.core.discriminator import (
    AdaptiveRange,
    DiscriminatorStats,
    bradley_terry_loss,
    cross_entropy_loss,
)

Array = NDArray[np.float64]
SHARP = AdaptiveRange(a=0.3, b=0.7, lo=0.3, hi=2.0)
SMOOTH = AdaptiveRange(a=1.0, b=0.6, lo=1.0, hi=7.0)


@dataclass(frozen=True)
class Variant:
    """One setting of one loss."""

    kind: str = "bradley_terry"
    temperature: float | AdaptiveRange = 5.0
    margin: float = 0.0
    batch_norm: bool = False
    threshold: float = 3.0
    weight: float = 0.01


VARIANTS = {
    "fixed": Variant(),
    "margin": Variant(temperature=2.0, margin=0.75),
    "batch_norm": Variant(temperature=0.5, batch_norm=True),
    "sharp": Variant(temperature=SHARP),
    "smooth with margin": Variant(temperature=SMOOTH, margin=-0.5),
    "free and normalised": Variant(temperature=AdaptiveRange(a=-1.0, b=2.0, lo=0.1, hi=9.0), batch_norm=True),
    "cross-entropy": Variant(kind="cross_entropy", temperature=1.5, threshold=1.0, weight=0.1),
    "cross-entropy sharp": Variant(kind="cross_entropy", temperature=SHARP),
}


def torch_loss(
    v: Variant, teacher: Tensor, student: Tensor, group: Tensor, **sizes: int
) -> tuple[Tensor, DiscriminatorStats]:
    shared = {
        "group": group,
        "temperature": v.temperature,
        "reg_threshold": v.threshold,
        "reg_weight": v.weight,
    }
    if v.kind == "cross_entropy":
        return cross_entropy_loss(teacher, student, **shared, **sizes)  # type: ignore[arg-type]
    return bradley_terry_loss(teacher, student, margin=v.margin, batch_norm=v.batch_norm, **shared, **sizes)  # type: ignore[arg-type]


def softplus(x: Array) -> Array:
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


def sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def reference(
    v: Variant, teacher: Array, student: Array, group: NDArray[np.int64]
) -> tuple[float, float, Array, Array]:
    """Loss, τ and the gradients of both sides, in float64."""
    prompts, responses = len(teacher), len(student)
    mean, std = 0.0, 1.0
    both = np.concatenate([teacher[group], student])
    if v.batch_norm:
        mean, std = both.mean(), max(both.std(), 1e-4)
    t, s = (teacher - mean) / std, (student - mean) / std
    d = t[group] - s
    tau = v.temperature
    if isinstance(tau, AdaptiveRange):
        tau = float(np.clip(tau.a + tau.b * np.abs(d).mean(), tau.lo, tau.hi))
    if v.kind == "cross_entropy":
        loss = softplus(-teacher / tau).mean() + softplus(student / tau).mean()
        to_t = -sigmoid(-teacher / tau) / tau / prompts
        to_s = sigmoid(student / tau) / tau / responses
    else:
        x = (d - v.margin) / tau
        loss = softplus(-x).mean()
        to_d = -sigmoid(-x) / tau / responses
        to_t = np.bincount(group, weights=to_d, minlength=prompts)
        to_s = -to_d
        if v.batch_norm:
            # d is (s_T − s_S)/std: through the mean nothing flows, through std (b − mean)/(n · std²) · Σ to_d · d.
            flow = float((to_d * d).sum()) if both.std() > 1e-4 else 0.0
            through = -flow * (both - mean) / (len(both) * std**2)
            to_t = to_t / std + np.bincount(group, weights=through[:responses], minlength=prompts)
            to_s = to_s / std + through[responses:]
    for side, gradient in ((teacher, to_t), (student, to_s)):
        excess = np.maximum(np.abs(side) - v.threshold, 0.0)
        loss += v.weight * (excess**2).mean()
        gradient += v.weight * 2.0 * excess * np.sign(side) / len(side)
    return float(loss), tau, to_t, to_s


@st.composite
def scored(draw: st.DrawFn) -> tuple[Array, Array, NDArray[np.int64]]:
    """Scores of some prompts with groups of different sizes; ties and ±1e4 among them."""
    score = st.one_of(st.floats(-8.0, 8.0, width=32), st.sampled_from([0.0, 1.0, -1.0, 1e4, -1e4]))
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    teacher = draw(st.lists(score, min_size=len(sizes), max_size=len(sizes)))
    student = draw(st.lists(score, min_size=sum(sizes), max_size=sum(sizes)))
    return np.asarray(teacher), np.asarray(student), np.repeat(np.arange(len(sizes)), sizes)


def evaluate(
    v: Variant, teacher: Array, student: Array, group: NDArray[np.int64], dtype: torch.dtype
) -> tuple[float, float, Array, Array]:
    t = torch.tensor(teacher, dtype=dtype, requires_grad=True)
    s = torch.tensor(student, dtype=dtype, requires_grad=True)
    loss, stats = torch_loss(v, t, s, torch.from_numpy(group))
    assert not stats.temperature.requires_grad
    assert float(stats.rank + stats.reg) == pytest.approx(float(loss.detach()), rel=1e-6)
    to_t, to_s = torch.autograd.grad(loss, [t, s])
    return float(loss.detach()), float(stats.temperature), to_t.double().numpy(), to_s.double().numpy()


@pytest.mark.parametrize("name", VARIANTS)
@given(batch=scored())
@settings(max_examples=60, deadline=None)
def test_value_and_gradient_are_those_of_the_formula(
    name: str, batch: tuple[Array, Array, NDArray[np.int64]]
) -> None:
    wanted = reference(VARIANTS[name], *batch)
    # Normalised scores' gradients are differences of terms that are larger by one over their deviation.
    deviation = (
        max(float(np.concatenate([batch[0][batch[2]], batch[1]]).std()), 1e-4)
        if VARIANTS[name].batch_norm
        else 1.0
    )
    for dtype, exact in ((torch.float64, 1e-9), (torch.float32, 2e-5)):
        found = evaluate(VARIANTS[name], *batch, dtype)
        # A gradient near zero is what is left of larger ones that cancel: it is as exact as they are.
        terms = 1.0 / len(batch[1]) / min(1.0, deviation)
        size = max(float(np.abs(np.concatenate(wanted[2:])).max()), terms)
        assert found[0] == pytest.approx(wanted[0], rel=exact, abs=exact)
        assert found[1] == pytest.approx(wanted[1], rel=exact)
        np.testing.assert_allclose(found[2], wanted[2], rtol=exact, atol=exact * size)
        np.testing.assert_allclose(found[3], wanted[3], rtol=exact, atol=exact * size)


@pytest.mark.parametrize(
    "name", [name for name, v in VARIANTS.items() if v.temperature in (5.0, 2.0, 0.5, 1.5)]
)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_the_references_gradient_is_the_slope_of_its_value(name: str, data: st.DataObject) -> None:
    """The derivation above, by central differences; scores near the penalty's edge and ±1e4 left out."""
    v = VARIANTS[name]
    score = st.floats(-2.5, 2.5).map(lambda x: round(x, 3))
    teacher = np.asarray(data.draw(st.lists(score, min_size=2, max_size=2, unique=True)))
    student = np.asarray(data.draw(st.lists(score, min_size=3, max_size=3)))
    group = np.asarray([0, 0, 1])
    _, _, to_t, to_s = reference(v, teacher, student, group)
    for i in range(5):
        step = np.zeros(5)
        step[i] = 1e-5
        up = reference(v, teacher + step[:2], student + step[2:], group)[0]
        down = reference(v, teacher - step[:2], student - step[2:], group)[0]
        assert (up - down) / 2e-5 == pytest.approx(np.concatenate([to_t, to_s])[i], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", VARIANTS)
@given(batch=scored(), data=st.data())
@settings(max_examples=30, deadline=None)
def test_the_order_of_prompts_and_responses_does_not_matter(
    name: str, batch: tuple[Array, Array, NDArray[np.int64]], data: st.DataObject
) -> None:
    teacher, student, group = batch
    prompts = np.asarray(data.draw(st.permutations(range(len(teacher)))))
    responses = np.asarray(data.draw(st.permutations(range(len(student)))))
    place = np.argsort(prompts)
    plain = evaluate(VARIANTS[name], teacher, student, group, torch.float64)
    turned = evaluate(
        VARIANTS[name], teacher[prompts], student[responses], place[group[responses]], torch.float64
    )
    assert turned[0] == pytest.approx(plain[0], rel=1e-12)
    np.testing.assert_allclose(turned[2], plain[2][prompts], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(turned[3], plain[3][responses], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["fixed", "margin", "cross-entropy"])
@given(batch=scored())
@settings(max_examples=30, deadline=None)
def test_parts_of_a_batch_add_up_to_the_whole_where_no_part_needs_the_others(
    name: str, batch: tuple[Array, Array, NDArray[np.int64]]
) -> None:
    v = VARIANTS[name]
    teacher, student, group = (torch.from_numpy(part) for part in batch)
    whole, _ = torch_loss(v, teacher, student, group)
    sizes = {"num_prompts": len(teacher), "num_responses": len(student)}
    parts = [
        torch_loss(
            v,
            teacher[p : p + 1],
            student[group == p],
            torch.zeros(int((group == p).sum()), dtype=torch.int64),
            **sizes,
        )[0]
        for p in range(len(teacher))
    ]
    assert float(sum(parts)) == pytest.approx(float(whole), rel=1e-12)


def test_an_adaptive_temperature_is_worked_out_by_hand() -> None:
    # d = 1 and −3: mean |d| = 2. sharp: 0.3 + 0.7 · 2 = 1.7; smooth: 1 + 0.6 · 2 = 2.2.
    teacher, student, group = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0]), torch.tensor([0, 1])
    for setting, tau in ((SHARP, 1.7), (SMOOTH, 2.2)):
        loss, stats = bradley_terry_loss(teacher, student, group=group, temperature=setting)
        assert float(stats.temperature) == pytest.approx(tau)
        wanted = (math.log1p(math.exp(-1 / tau)) + math.log1p(math.exp(3 / tau))) / 2
        assert float(loss) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("gap", "tau"), [(0.0, 0.3), (100.0, 2.0)])
def test_an_adaptive_temperature_stays_within_its_bounds(gap: float, tau: float) -> None:
    _, stats = bradley_terry_loss(
        torch.tensor([gap]), torch.tensor([0.0]), group=torch.tensor([0]), temperature=SHARP
    )
    assert float(stats.temperature) == pytest.approx(tau)


def test_a_cross_entropy_is_worked_out_by_hand() -> None:
    # −log σ(1) = 0.3132617, −log σ(0) = log 2; −log(1 − σ(2)) = 2.1269280, of one response.
    teacher = torch.tensor([2.0, 0.0], requires_grad=True)
    student = torch.tensor([4.0], requires_grad=True)
    loss, stats = cross_entropy_loss(teacher, student, group=torch.tensor([0]), temperature=2.0)
    assert float(loss.detach()) == pytest.approx((0.3132617 + 0.6931472) / 2 + 2.1269280, abs=1e-6)
    loss.backward()
    assert teacher.grad is not None
    assert student.grad is not None
    # −(1 − σ(1))/2/2 and −0.5/2/2; σ(2)/2.
    assert teacher.grad.tolist() == pytest.approx([-0.0672354, -0.125], abs=1e-6)
    assert student.grad.tolist() == pytest.approx([0.4403985], abs=1e-6)
    assert (float(stats.batch_mean), float(stats.batch_std)) == (0.0, 1.0)


def test_scores_of_zero_cost_twice_log_2_under_cross_entropy() -> None:
    zero = torch.zeros(3)
    loss, _ = cross_entropy_loss(zero, zero, group=torch.arange(3), temperature=5.0)
    assert float(loss) == pytest.approx(2 * math.log(2))
