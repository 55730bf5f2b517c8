"""Near-duplicates: what counts as one, and that the estimate is the share of common 5-grams."""

from __future__ import annotations

import random

import numpy as np
import pytest

from gad_ray.quality.near import NUM_HASHES, near_clusters, near_matches, similarity, sketch
from tests.unit.quality.rows import sentence

DRAW = random.Random(4)
TEXTS = [sentence(DRAW, low=30, high=60) for _ in range(200)]


def sketches(*texts: str) -> np.ndarray:
    return np.stack([sketch(text) for text in texts])


def jaccard(left: str, right: str) -> float:
    a, b = ({text[i : i + 5] for i in range(len(text) - 4)} for text in (left.casefold(), right.casefold()))
    return len(a & b) / len(a | b)


def test_letter_case_white_space_and_width_do_not_count():
    first, *others = sketches("Why is the sky blue?", "why  is\nthe SKY blue?", "Ｗhy is the sky blue？")
    assert all((first == other).all() for other in others)


def test_the_estimate_is_the_share_of_common_grams_within_its_error():
    base = TEXTS[0]
    for cut in (0, 20, 60, 120, 200):
        other = base[cut:] + TEXTS[1][:cut]
        found = float(similarity(sketches(base), sketches(other))[0])
        assert found == pytest.approx(jaccard(base, other), abs=4 * 0.5 / NUM_HASHES**0.5)


def test_texts_that_differ_in_a_word_are_one_cluster_and_others_are_alone():
    near = [text.replace(" ", " so ", 1) for text in TEXTS[:20]]
    clusters = near_clusters(sketches(*TEXTS, *near))
    assert [clusters[200 + i] for i in range(20)] == [clusters[i] for i in range(20)]
    assert len(set(clusters)) == 200


def test_a_chain_of_near_duplicates_is_one_cluster():
    words = TEXTS[2].split()
    chain = [" ".join(words[i:]) for i in range(6)]
    assert len(set(near_clusters(sketches(*chain)))) == 1


def test_a_match_across_sets_is_the_most_similar_text():
    text = TEXTS[3]
    others = sketches(TEXTS[4], text.replace(" ", " so ", 3), f"{text}!", TEXTS[5])
    found = near_matches(sketches(text, TEXTS[6]), others)
    assert found.tolist() == [2, -1]


def test_short_texts_of_any_script_are_told_apart_and_found_again():
    texts = ["a", "b", "", "天空", "天空为什么是蓝色的", "海水为什么是咸的", "天空为什么是蓝色的"]
    clusters = near_clusters(sketches(*texts))
    assert clusters[4] == clusters[6]
    assert len(set(clusters)) == 6


def test_no_text_has_no_cluster_and_no_match():
    empty = np.zeros((0, NUM_HASHES), dtype=np.uint32)
    assert near_clusters(empty).shape == (0,)
    assert near_matches(empty, sketches("a")).shape == (0,)
    assert near_matches(sketches("a"), empty).tolist() == [-1]
