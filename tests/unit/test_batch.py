import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gad_ray.batch import (
    PromptBatch,
    Ragged,
    RolloutBatch,
    RolloutReceipt,
    ScoreBatch,
    StopReason,
    merge_metrics,
)
from gad_ray.models.chat import ChatFormat
from tests.unit.builders import prompt_batch, rollout_batch, sampling, score_batch


@pytest.fixture
def rollouts(chat: ChatFormat) -> RolloutBatch:
    return rollout_batch(chat, prompt_batch(2))


def ragged(*rows: list[int]) -> Ragged:
    return Ragged.from_rows(rows, np.int32)


def test_rows_come_out_of_a_ragged_array_as_they_went_in():
    rows = ragged([1, 2, 3], [], [4])
    assert [row.tolist() for row in rows] == [[1, 2, 3], [], [4]]
    assert rows.lengths.tolist() == [3, 0, 1]
    assert len(rows) == 3
    assert rows.values.dtype == np.int32


def test_ragged_arrays_are_joined_and_taken_from_in_order():
    joined = Ragged.concat([ragged([1], [2, 3]), ragged(), ragged([4, 5, 6])])
    assert [row.tolist() for row in joined] == [[1], [2, 3], [4, 5, 6]]
    assert [row.tolist() for row in joined.take([2, 0, 2])] == [[4, 5, 6], [1], [4, 5, 6]]


def test_no_rows_are_an_empty_ragged_array():
    assert len(Ragged.from_rows([], np.float32)) == 0


@pytest.mark.parametrize(
    ("offsets", "message"),
    [([], "at least one"), ([1, 3], "start at 0"), ([0, 2], "end at"), ([0, 3, 2, 3], "must not decrease")],
)
def test_offsets_that_do_not_fit_the_values_are_refused(offsets: list[int], message: str):
    with pytest.raises(ValueError, match=message):
        Ragged(values=np.zeros(3), offsets=np.asarray(offsets, dtype=np.int64))


def test_an_empty_batch_of_prompts_is_refused():
    with pytest.raises(ValueError, match="at least one example"):
        PromptBatch(step=0, examples=())


def test_shards_hold_every_prompt_once_and_there_is_none_where_there_are_too_few():
    batch = prompt_batch(3)
    shards = [batch.shard(i, 2) for i in range(2)]
    assert [[e.id for e in s.examples] for s in shards if s is not None] == [["e0", "e2"], ["e1"]]
    assert batch.shard(3, 4) is None


@pytest.mark.parametrize("changed", [{"num_responses": 0}, {"max_tokens": 0}])
def test_sampling_settings_that_draw_nothing_are_refused(changed: dict[str, int]):
    with pytest.raises(ValueError, match=next(iter(changed))):
        sampling(**changed)


def test_the_length_of_a_text_is_the_same_on_both_sides(chat: ChatFormat):
    """The policy's own end-of-turn token is none of its text; a response that was cut has none."""
    prompts = prompt_batch(2)
    same = [(example.teacher_response,) for example in prompts.examples]
    batch = rollout_batch(chat, prompts, texts=same)
    assert batch.text_lengths.tolist() == batch.teacher_lengths.tolist()
    assert (batch.response_tokens.lengths == batch.teacher_lengths + 1).all()
    cut = dataclasses.replace(batch, stop_reasons=(StopReason.LENGTH, StopReason.STOP))
    assert (cut.text_lengths - batch.text_lengths).tolist() == [1, 0]
    assert batch.num_tokens == sum(batch.teacher_lengths) + 2, "what was generated counts all of it"


def without_last(rows: Ragged) -> Ragged:
    return rows.take(range(len(rows) - 1))


def with_value(rows: Ragged, value: float) -> Ragged:
    return Ragged(
        values=np.where(np.arange(len(rows.values)) == 3, np.float32(value), rows.values),
        offsets=rows.offsets,
    )


def one_row_empty(rows: Ragged) -> Ragged:
    return Ragged.from_rows([row if i else row[:0] for i, row in enumerate(rows)], rows.values.dtype)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: {"texts": b.texts[:-1]}, "texts has 5 rows, example_ids 6"),
        (lambda b: {"teacher_lengths": b.teacher_lengths[:-1]}, "teacher_lengths has 5 rows"),
        (lambda b: {"response_tokens": without_last(b.response_tokens)}, "response_tokens has 5 rows"),
        (
            lambda b: {"logprobs": Ragged.concat([b.logprobs.take([1, 0]), b.logprobs.take(range(2, 6))])},
            "differ in their row lengths",
        ),
        (lambda b: {"logprobs": with_value(b.logprobs, float("nan"))}, "not finite"),
        (lambda b: {"logprobs": with_value(b.logprobs, float("-inf"))}, "not finite"),
        (
            lambda b: {
                "response_tokens": one_row_empty(b.response_tokens),
                "logprobs": one_row_empty(b.logprobs),
            },
            "without tokens",
        ),
        (lambda b: {"example_ids": ("e0", "e0", "e1", "e1", "e1", "e0")}, "must be adjacent"),
    ],
)
def test_a_rollout_batch_that_contradicts_itself_is_refused(
    rollouts: RolloutBatch, change: Callable[[RolloutBatch], dict[str, Any]], message: str
):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(rollouts, **change(rollouts))


def test_groups_are_the_runs_of_responses_to_one_prompt(chat: ChatFormat):
    uneven = rollout_batch(chat, prompt_batch(3), texts=[("a",), ("b", "c"), ("d", "e", "f")])
    assert uneven.groups() == [(0, 1), (1, 3), (3, 6)]
    empty = rollout_batch(chat, prompt_batch(1), texts=[()])
    assert empty.groups() == []


def test_shards_of_a_step_are_joined_row_by_row(chat: ChatFormat):
    whole = prompt_batch(4)
    parts = [
        rollout_batch(
            chat,
            PromptBatch(step=1, examples=whole.examples[i : i + 2]),
            num_failed=i,
            num_retried=1,
            seconds=1.0 + i,
        )
        for i in (0, 2)
    ]
    joined = RolloutBatch.concat(parts)
    assert joined.example_ids == parts[0].example_ids + parts[1].example_ids
    assert joined.texts == parts[0].texts + parts[1].texts
    for part, start in zip(parts, (0, len(parts[0])), strict=True):
        for i in range(len(part)):
            assert joined.response_tokens[start + i].tolist() == part.response_tokens[i].tolist()
            assert joined.logprobs[start + i].tolist() == part.logprobs[i].tolist()
    # Failures add up; the shards ran side by side.
    assert (joined.num_failed, joined.num_retried, joined.seconds) == (2, 2, 3.0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"step": 9}, "steps differ"),
        ({"sampling": sampling(temperature=0.5)}, "sampling settings differ"),
    ],
)
def test_shards_drawn_in_different_ways_are_not_joined(
    chat: ChatFormat, changed: dict[str, Any], message: str
):
    whole = prompt_batch(2)
    first, second = (PromptBatch(step=1, examples=(example,)) for example in whole.examples)
    with pytest.raises(ValueError, match=message):
        RolloutBatch.concat([rollout_batch(chat, first), rollout_batch(chat, second, **changed)])


def test_shards_of_several_policy_versions_are_joined_and_each_sample_keeps_its_own(chat: ChatFormat):
    whole = prompt_batch(2)
    first, second = (PromptBatch(step=1, examples=(example,)) for example in whole.examples)
    joined = RolloutBatch.concat(
        [
            rollout_batch(chat, first),
            rollout_batch(chat, second, texts=[["a", "b"]], policy_versions=np.asarray([3, 2])),
        ]
    )
    assert joined.policy_versions.tolist() == [0, 0, 0, 3, 2]
    assert joined.oldest_version == 0
    assert joined.take([3, 4]).policy_versions.tolist() == [3, 2]
    assert RolloutReceipt.of(joined).versions == {"e0": 0, "e1": 2}


def test_a_receipt_counts_responses_and_tokens(rollouts: RolloutBatch):
    receipt = RolloutReceipt.of(rollouts)
    assert receipt.num_responses == 6
    assert receipt.num_tokens == sum(len(row) for row in rollouts.response_tokens)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_scores_that_are_not_finite_are_refused(side: str, value: float):
    scores = {"student": [0.0, 1.0], "teacher": [0.0, 1.0]}
    scores[side][1] = value
    with pytest.raises(ValueError, match=f"{side} score is not finite"):
        score_batch(scores["student"], scores["teacher"])


def test_scores_are_float32_vectors_of_one_length():
    with pytest.raises(ValueError, match="differ in shape"):
        score_batch([0.0, 1.0], [0.0])
    with pytest.raises(ValueError, match="must be float32"):
        ScoreBatch(student=np.zeros(2), teacher=np.zeros(2, dtype=np.float32), critic_version=0)  # type: ignore[arg-type]


def test_two_things_are_never_logged_under_one_name():
    assert merge_metrics({"a": 1.0}, {"b": np.float32(2.0)}) == {"a": 1.0, "b": 2.0}
    with pytest.raises(ValueError, match="metric a is given twice"):
        merge_metrics({"a": 1.0}, {"a": 1.0})
