"""What is there more than once, in one set of rows or across the held-out border."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gad_ray.quality.figures import Duplicates, Found, Leakage
from gad_ray.quality.near import near_clusters, near_matches
from gad_ray.quality.samples import SampleBox
from gad_ray.quality.survey import Items, Survey

SHARED_PROMPTS = 5
"""Different prompts with one answer from which it is boilerplate."""

_SHARED_CHARACTERS = 20


def duplicates_of(survey: Survey) -> Duplicates:
    """Repeated rows, repeated and nearly repeated prompts, and answers that many prompts share."""
    items = survey.items
    prompts = np.asarray(items.prompt_hash, dtype=np.uint64)
    _, first, group = np.unique(prompts, return_index=True, return_inverse=True)
    near, largest = _near_prompts(items, np.sort(first))
    return Duplicates(
        rows=Found(count=survey.repeated.count, total=survey.num_usable, samples=survey.repeated.samples),
        prompts=_repeated_prompts(items, first[group]),
        near_prompts=near,
        largest_cluster=largest,
        shared_answers=_shared_answers(items, prompts),
    )


def _repeated_prompts(items: Items, first: NDArray[np.int64]) -> Found:
    box = SampleBox()
    for item in np.flatnonzero(first != np.arange(len(first))):
        earlier = items.places[first[item]]
        box.add(
            items.places[item],
            items.prompts[item],
            items.answers[item],
            f"another answer stands at {earlier}",
        )
    return Found(count=box.count, total=len(items), samples=box.samples)


def _near_prompts(items: Items, distinct: NDArray[np.int64]) -> tuple[Found, int]:
    """Near-duplicates among distinct prompts, and the size of the largest cluster of them."""
    clusters = near_clusters(items.prompt_sketch.matrix()[distinct])
    if not len(clusters):
        return Found(count=0, total=0), 0
    _, first, sizes = np.unique(clusters, return_index=True, return_counts=True)
    box = SampleBox()
    leader = distinct[first][clusters]
    for item, like in zip(distinct, leader, strict=True):
        if item != like:
            note = f"like {items.places[like]}: {items.prompts[like]}"
            box.add(items.places[item], items.prompts[item], "", note)
    return Found(count=box.count, total=len(distinct), samples=box.samples), int(sizes.max())


def _shared_answers(items: Items, prompts: NDArray[np.uint64]) -> Found:
    """Answers that, or the like of which, at least ``SHARED_PROMPTS`` different prompts have."""
    long = np.flatnonzero(np.asarray(items.answer_characters, dtype=np.int64) >= _SHARED_CHARACTERS)
    clusters = near_clusters(items.answer_sketch.matrix()[long])
    if not len(clusters):
        return Found(count=0, total=len(items))
    pairs = np.unique(np.stack([clusters.astype(np.uint64), prompts[long]], axis=1), axis=0)
    num_prompts = np.bincount(pairs[:, 0].astype(np.int64), minlength=int(clusters.max()) + 1)
    box = SampleBox()
    for item, cluster in zip(long, clusters, strict=True):
        if num_prompts[cluster] >= SHARED_PROMPTS:
            note = f"{num_prompts[cluster]} prompts have this answer, or one like it"
            box.add(items.places[item], items.prompts[item], items.answers[item], note)
    return Found(count=box.count, total=len(items), samples=box.samples)


def leakage_of(train: Survey, heldout: Survey, *, sources: tuple[str, ...]) -> Leakage:
    """Held-out prompts that are in the data to train on, exactly or nearly.

    Args:
        train: The rows to train on.
        heldout: The held-out rows.
        sources: Names of the held-out inputs.
    """
    own, theirs = heldout.items, train.items
    _, distinct = np.unique(np.asarray(own.prompt_hash, dtype=np.uint64), return_index=True)
    place_of = dict(zip(theirs.prompt_hash, theirs.places, strict=True))
    matches = near_matches(own.prompt_sketch.matrix()[distinct], theirs.prompt_sketch.matrix())
    exact, near = SampleBox(), SampleBox()
    for item, match in zip(distinct, matches, strict=True):
        if (place := place_of.get(own.prompt_hash[item])) is not None:
            exact.add(own.places[item], own.prompts[item], "", f"also at {place}")
        elif match >= 0:
            note = f"like {theirs.places[match]}: {theirs.prompts[match]}"
            near.add(own.places[item], own.prompts[item], "", note)
    return Leakage(
        sources=sources,
        num_heldout=len(distinct),
        num_unusable=heldout.num_rows - heldout.num_usable,
        exact=Found(count=exact.count, total=len(distinct), samples=exact.samples),
        near=Found(count=near.count, total=len(distinct), samples=near.samples),
    )
