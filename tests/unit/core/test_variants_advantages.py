from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gad_ray.core.advantages import (
    ADVANTAGES,
    DrGrpoAdvantage,
    GroupAdvantage,
    GrpoAdvantage,
    OpoAdvantage,
    RankAdvantage,
    ReinforcePpAdvantage,
    Rewarded,
    RlooAdvantage,
    reinforce_pp_advantages,
)
from gad_ray.errors import ConfigError

Array = NDArray[np.float64]
FLOOR = 1e-6


def np_grpo(groups: list[Array], lengths: list[Array]) -> list[Array]:
    def one(r: Array) -> Array:
        std = r.std(ddof=1) if len(r) > 1 else 0.0
        return np.clip((r - r.mean()) / max(std, 0.1), -5.0, 5.0)

    return [one(r) for r in groups]


def np_dr_grpo(groups: list[Array], lengths: list[Array]) -> list[Array]:
    return [r - r.mean() for r in groups]


def np_rloo(groups: list[Array], lengths: list[Array]) -> list[Array]:
    return [
        np.asarray([r[i] - np.delete(r, i).mean() if len(r) > 1 else 0.0 for i in range(len(r))])
        for r in groups
    ]


def np_rank(groups: list[Array], lengths: list[Array]) -> list[Array]:
    def one(r: Array) -> Array:
        if len(r) == 1:
            return np.zeros(1)
        # Place of each reward in the descending order; equal rewards share the mean of their places.
        places = np.empty(len(r))
        places[np.argsort(-r, kind="stable")] = np.arange(len(r))
        shared = np.asarray([places[r == value].mean() for value in r])
        return 1.0 - 2.0 * shared / (len(r) - 1)

    return [one(r) for r in groups]


def np_reinforce_pp(groups: list[Array], lengths: list[Array]) -> list[Array]:
    flat = np.concatenate([r - r.mean() for r in groups])
    if len(flat) == 1:
        return [np.zeros(1)]
    flat = (flat - flat.mean()) / max(flat.std(ddof=1), FLOOR)
    return np.split(flat, np.cumsum([len(r) for r in groups])[:-1])


def np_opo(groups: list[Array], lengths: list[Array]) -> list[Array]:
    return [r - np.average(r, weights=n) for r, n in zip(groups, lengths, strict=True)]


Ints = NDArray[np.int64]
Reference = Callable[[list[Array], list[Array]], list[Array]]

VARIANTS: dict[str, tuple[GroupAdvantage, Reference]] = {
    "grpo": (GrpoAdvantage(std_floor=0.1, clip=5.0), np_grpo),
    "dr_grpo": (DrGrpoAdvantage(), np_dr_grpo),
    "rloo": (RlooAdvantage(), np_rloo),
    "rank": (RankAdvantage(), np_rank),
    "reinforce_pp": (ReinforcePpAdvantage(std_floor=FLOOR), np_reinforce_pp),
    "opo": (OpoAdvantage(), np_opo),
}


def ours(name: str, rewards: Array, group: Ints, lengths: Ints) -> Array:
    settings = VARIANTS[name][0]
    return ADVANTAGES.of(settings)(Rewarded(rewards=rewards, group=group, lengths=lengths), settings)


def test_every_registered_advantage_is_held_against_a_computation_of_its_own():
    # One from outside the package may have been imported by another test of this process.
    own = {settings for settings in ADVANTAGES if settings.__module__.startswith("gad_ray.")}
    assert {type(settings) for settings, _ in VARIANTS.values()} == own


EACH = pytest.mark.parametrize("name", VARIANTS)

# Multiples of 1/8 tie often and are exact, so that a group of equal rewards is one in every arithmetic.
REWARD = st.integers(-80000, 80000).map(lambda i: i / 8) | st.sampled_from([-1e4, 0.0, 1.0, 1e4])
GROUP = st.lists(st.tuples(REWARD, st.integers(1, 2000)), min_size=1, max_size=6) | st.builds(
    lambda r, lengths: [(r, n) for n in lengths], REWARD, st.lists(st.integers(1, 9), min_size=1, max_size=5)
)
BATCH = st.lists(GROUP, min_size=1, max_size=4)


def arrays_of(batch: list[list[tuple[float, int]]]) -> tuple[Array, Ints, Ints]:
    rewards = np.asarray([r for group in batch for r, _ in group], dtype=np.float64)
    group = np.asarray([i for i, members in enumerate(batch) for _ in members], dtype=np.int64)
    lengths = np.asarray([n for members in batch for _, n in members], dtype=np.int64)
    return rewards, group, lengths


@EACH
@settings(deadline=None)
@given(batch=BATCH)
def test_an_advantage_is_that_of_an_independent_computation(name: str, batch: list[list[tuple[float, int]]]):
    rewards, lengths = (
        [np.asarray([pair[k] for pair in group], dtype=np.float64) for group in batch] for k in (0, 1)
    )
    wanted = np.concatenate(VARIANTS[name][1](rewards, lengths))
    # What is left of 1e4 − mean in double precision, over the smallest divisor that a spread of 1/8 leaves.
    np.testing.assert_allclose(ours(name, *arrays_of(batch)), wanted, rtol=1e-9, atol=1e-7)


@EACH
@settings(deadline=None)
@given(batch=BATCH, seed=st.integers(0, 99))
def test_the_order_of_the_responses_does_not_matter(
    name: str, batch: list[list[tuple[float, int]]], seed: int
):
    rewards, group, lengths = arrays_of(batch)
    order = np.random.default_rng(seed).permutation(len(rewards))
    shuffled = ours(name, rewards[order], group[order], lengths[order])
    np.testing.assert_allclose(shuffled, ours(name, rewards, group, lengths)[order], rtol=1e-9, atol=1e-7)


@EACH
def test_a_group_of_equal_rewards_and_one_of_a_single_response_have_no_advantage(name: str):
    rewards = np.asarray([-1e4, -1e4, -1e4, 1e4])
    found = ours(name, rewards, np.asarray([0, 0, 0, 1]), np.asarray([1, 5, 7, 3]))
    assert found.tolist() == [0.0, 0.0, 0.0, 0.0]


@EACH
def test_an_empty_batch_has_no_advantages(name: str):
    empty = np.zeros(0, dtype=np.int64)
    assert ours(name, empty.astype(np.float64), empty, empty).tolist() == []


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        # Groups (1, 3) and (0, 0, 6), of lengths (1, 3) and (1, 1, 2).
        ("dr_grpo", [-1.0, 1.0, -2.0, -2.0, 4.0]),
        ("rloo", [-2.0, 2.0, -3.0, -3.0, 6.0]),
        ("rank", [-1.0, 1.0, -0.5, -0.5, 1.0]),
        ("opo", [-1.5, 0.5, -3.0, -3.0, 3.0]),
        # Centred: −1, 1, −2, −2, 4; their mean is 0 and Σ squares 26, so that std = √(26/4) = 2.5495098.
        ("reinforce_pp", [-0.3922323, 0.3922323, -0.7844645, -0.7844645, 1.5689291]),
    ],
)
def test_an_advantage_is_that_worked_out_by_hand(name: str, wanted: list[float]):
    rewards = np.asarray([1.0, 3.0, 0.0, 0.0, 6.0])
    found = ours(name, rewards, np.asarray([0, 0, 1, 1, 1]), np.asarray([1, 3, 1, 1, 2]))
    assert found.tolist() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    ("floor", "wanted"),
    # Centred, as above: −1, 1, −2, −2, 4, whose deviation 2.55 is above a floor of 2 and below one of 4.
    [
        (2.0, [-0.3922323, 0.3922323, -0.7844645, -0.7844645, 1.5689291]),
        (4.0, [-0.25, 0.25, -0.5, -0.5, 1.0]),
    ],
)
def test_whitening_divides_by_the_deviation_or_by_the_floor_and_not_by_their_sum(
    floor: float, wanted: list[float]
):
    batch = Rewarded(
        rewards=np.asarray([1.0, 3.0, 0.0, 0.0, 6.0]),
        group=np.asarray([0, 0, 1, 1, 1]),
        lengths=np.ones(5, dtype=np.int64),
    )
    found = reinforce_pp_advantages(batch, ReinforcePpAdvantage(std_floor=floor))
    assert found.tolist() == pytest.approx(wanted, abs=1e-6)


def test_settings_of_no_registered_advantage_are_refused_by_name():
    class Odd(GroupAdvantage):
        name: str = "odd"

    with pytest.raises(ConfigError, match="Odd is the settings of no registered advantage"):
        ADVANTAGES.of(Odd())
