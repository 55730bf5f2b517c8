import pytest

from gad_ray.core.rewards import no_repetition


@pytest.mark.parametrize(
    ("text", "ngram", "value"),
    [
        # Bigrams: (a b) (b a) (a b): 2 of 3 distinct.
        ("a b a b", 2, 2 / 3 - 1),
        ("the quick brown fox", 2, 0.0),
        ("ja ja ja ja ja", 1, 1 / 5 - 1),
        # Without spaces, by characters: (天空) (空天) (天空).
        ("天空天空", 2, 2 / 3 - 1),
        ("too short", 4, 0.0),
        ("", 1, 0.0),
        ("  \n ", 1, 0.0),
    ],
)
def test_the_share_of_distinct_n_grams_minus_one(text: str, ngram: int, value: float):
    assert no_repetition(text, ngram=ngram) == pytest.approx(value)


def test_more_repetition_costs_more():
    values = [no_repetition("word " * count, ngram=2) for count in (2, 4, 16, 256)]
    assert values == sorted(values, reverse=True)
    assert values[-1] > -1.0
