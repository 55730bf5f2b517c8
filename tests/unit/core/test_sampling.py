import math
from itertools import pairwise
from typing import Any

import pytest
import torch

from gad_ray.core.sampling import processed_logits, sample_token
from tests.unit.builders import sampling

NOTHING_SEEN = torch.zeros(1, 3, dtype=torch.bool)
# Logits of the probabilities 0.5, 0.3, 0.2 in the order 0.3, 0.5, 0.2.
LOGITS = torch.tensor([[math.log(0.3), math.log(0.5), math.log(0.2)]])


def kept(**settings: Any) -> list[bool]:
    logits = processed_logits(LOGITS, seen=NOTHING_SEEN, settings=sampling(**settings))
    return torch.isfinite(logits)[0].tolist()


def test_plain_settings_change_nothing():
    assert torch.equal(processed_logits(LOGITS, seen=NOTHING_SEEN, settings=sampling()), LOGITS)


def test_the_penalty_makes_seen_tokens_less_likely_whatever_their_sign():
    # Seen: 2/2 = 1 and −2·2 = −4; not seen: 3 stays.
    logits = processed_logits(
        torch.tensor([[2.0, -2.0, 3.0]]),
        seen=torch.tensor([[True, True, False]]),
        settings=sampling(repetition_penalty=2.0),
    )
    assert logits.tolist() == [[1.0, -4.0, 3.0]]


def test_the_temperature_divides_what_the_penalty_left():
    logits = processed_logits(
        torch.tensor([[2.0, -2.0, 3.0]]),
        seen=torch.tensor([[True, True, False]]),
        settings=sampling(repetition_penalty=2.0, temperature=0.5),
    )
    assert logits.tolist() == [[2.0, -8.0, 6.0]]


def test_the_nucleus_is_the_smallest_set_that_holds_the_mass():
    assert kept(top_p=0.4) == [False, True, False]  # 0.5 ≥ 0.4
    assert kept(top_p=0.6) == [True, True, False]  # 0.5 < 0.6 ≤ 0.8
    assert kept(top_p=0.9) == [True, True, True]  # 0.8 < 0.9
    assert kept(top_p=1e-6) == [False, True, False]  # one always remains


def test_the_nucleus_is_taken_after_the_temperature():
    # At temperature 0.5 the probabilities are 0.25 : 0.09 : 0.04, the first 0.658 ≥ 0.6.
    assert kept(top_p=0.6, temperature=0.5) == [False, True, False]


def test_tokens_in_the_nucleus_keep_their_logits():
    logits = processed_logits(LOGITS, seen=NOTHING_SEEN, settings=sampling(top_p=0.6))
    assert torch.equal(logits[0, :2], LOGITS[0, :2])


def test_greedy_takes_the_largest_after_the_penalty():
    settings = sampling(temperature=0.0, repetition_penalty=3.0, top_p=0.1)
    logits = processed_logits(
        torch.tensor([[3.0, 2.0, 0.0]]), seen=torch.tensor([[True, False, False]]), settings=settings
    )
    assert logits.tolist() == [[1.0, 2.0, 0.0]]
    assert sample_token(logits, greedy=True, generators=[]).tolist() == [1]


def test_tokens_are_drawn_as_often_as_their_probability_says():
    draws = 4000
    generators = [torch.Generator().manual_seed(seed) for seed in range(draws)]
    tokens = sample_token(LOGITS.expand(draws, 3), greedy=False, generators=generators)
    for token, probability in enumerate((0.3, 0.5, 0.2)):
        share = float((tokens == token).float().mean())
        deviation = math.sqrt(probability * (1 - probability) / draws)
        assert share == pytest.approx(probability, abs=4 * deviation)


def test_one_generator_draws_on_independently():
    generator, draws = torch.Generator().manual_seed(5), 2000
    tokens = [int(sample_token(LOGITS, greedy=False, generators=[generator])) for _ in range(draws)]
    share = sum(a == b == 1 for a, b in pairwise(tokens)) / (draws - 1)
    # Twice in a row 0.25; neighbours overlap, so that the deviation is a little above √(0.25·0.75/n) = 0.0097.
    assert share == pytest.approx(0.25, abs=0.05)


def test_a_token_outside_the_nucleus_is_never_drawn():
    draws = 2000
    logits = processed_logits(LOGITS, seen=NOTHING_SEEN, settings=sampling(top_p=0.6)).expand(draws, 3)
    generators = [torch.Generator().manual_seed(seed) for seed in range(draws)]
    assert set(sample_token(logits, greedy=False, generators=generators).tolist()) == {0, 1}


def test_a_rows_token_does_not_depend_on_its_neighbours():
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(3))
    together = sample_token(
        logits, greedy=False, generators=[torch.Generator().manual_seed(s) for s in range(4)]
    )
    alone = [
        int(sample_token(logits[s : s + 1], greedy=False, generators=[torch.Generator().manual_seed(s)]))
        for s in range(4)
    ]
    assert together.tolist() == alone
