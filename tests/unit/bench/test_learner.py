"""The learners' updates beside a bare product: what counts as work, and real updates of tiny models."""

from __future__ import annotations

from pathlib import Path

from gad_ray.auto import resolve
from gad_ray.bench.learner import LearnerBench, responses_of, table
from gad_ray.bench.shape import Shape
from gad_ray.config import load_config
from gad_ray.models.chat import ChatFormat
from tests.game import Game
from tests.unit.builders import prompt_batch


def test_both_learners_are_measured_beside_the_product_of_their_precision(tmp_path: Path) -> None:
    config = resolve(load_config(str(Game(tmp_path, "").config("measured")))).config
    figures = LearnerBench(config=config, shape=Shape(2, 3, 5), rounds=2).run()
    for name in ("policy", "critic"):
        one = figures[name]
        assert one["precision"] == "float32"
        assert 0.0 < one["share"]["low"] <= one["share"]["median"] <= one["share"]["high"]
        assert one["seconds"] > 0.0
    head, *rows = table(figures)
    assert [row[0] for row in rows] == ["policy", "critic"]
    assert all(len(row) == len(head) for row in rows)


def test_responses_have_one_length_and_texts_of_their_own(chat: ChatFormat) -> None:
    prompts = prompt_batch()
    found = responses_of(prompts, prompts.examples, chat, num_responses=3, tokens=7)
    assert set(found.response_tokens.lengths.tolist()) == {7}
    assert [stop - start for start, stop in found.groups()] == [3] * len(prompts)
    assert len({tuple(row) for row in found.response_tokens}) > 1
