import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gad_ray.batch import PromptBatch, Ragged, RolloutBatch, ScoreBatch, StopReason
from gad_ray.errors import CheckpointError
from gad_ray.evaluation.heldout import (
    Answers,
    TextAnswers,
    current_metrics,
    distinct_n,
    fixed_metrics,
    load_fixed_set,
    load_rollouts,
    sample_rows,
    save_rollouts,
    summary_rows,
)
from gad_ray.models.chat import ChatFormat
from gad_ray.observability.metrics import METRICS
from tests.unit.builders import PROMPTS, TEACHER, prompt_batch, rollout_batch, sampling, score_batch

TEXTS = [("one two one",), ("two",), ("three four",), ("",)]


def answers_of(chat: ChatFormat, texts: list[tuple[str, ...]] = TEXTS, **changed: object) -> RolloutBatch:
    return rollout_batch(chat, prompt_batch(), texts=texts, **changed)


def lengths(*counts: int) -> dict[str, Ragged]:
    return {
        "response_tokens": Ragged.from_rows([[9] * n for n in counts], np.int32),
        "logprobs": Ragged.from_rows([[-1.0] * n for n in counts], np.float32),
    }


# -- on disk -----------------------------------------------------------------------------------------


def test_answers_come_back_from_disk_as_they_were_with_their_sampling_settings(
    chat: ChatFormat, tmp_path: Path
):
    rollouts = answers_of(
        chat,
        step=12,
        policy_versions=np.asarray([5, 5, 6, 5]),
        sampling=sampling(temperature=0.6, top_p=0.9, seed=1234),
        stop_reasons=(StopReason.LENGTH, *[StopReason.STOP] * 3),
    )
    path = tmp_path / "heldout" / "before.parquet"
    save_rollouts(path, rollouts)
    found = load_rollouts(path)
    for name in ("step", "sampling", "example_ids", "texts", "stop_reasons"):
        assert getattr(found, name) == getattr(rollouts, name)
    assert found.policy_versions.tolist() == [5, 5, 6, 5]
    for name in ("prompt_tokens", "response_tokens", "logprobs"):
        one, other = getattr(found, name), getattr(rollouts, name)
        assert one.values.dtype == other.values.dtype
        assert one.values.tolist() == other.values.tolist()
        assert one.offsets.tolist() == other.offsets.tolist()
    assert found.teacher_lengths.tolist() == rollouts.teacher_lengths.tolist()
    assert [entry.name for entry in path.parent.iterdir()] == ["before.parquet"]


def test_the_fixed_set_is_read_with_what_it_answers_and_needs_no_other_file(chat: ChatFormat, tmp_path: Path):
    path = tmp_path / "before.parquet"
    save_rollouts(path, answers_of(chat), prompt_batch())
    prompts, rollouts = load_fixed_set(path)
    assert prompts.examples == prompt_batch().examples
    assert rollouts.texts == answers_of(chat).texts


def test_answers_without_their_prompts_are_no_fixed_set(chat: ChatFormat, tmp_path: Path):
    save_rollouts(tmp_path / "part.parquet", answers_of(chat))
    with pytest.raises(CheckpointError, match="without the prompts"):
        load_fixed_set(tmp_path / "part.parquet")


def test_an_answer_is_saved_over_the_one_before(chat: ChatFormat, tmp_path: Path):
    path = tmp_path / "before.parquet"
    for step in (1, 2):
        save_rollouts(path, answers_of(chat, step=step))
    assert load_rollouts(path).step == 2


@pytest.mark.parametrize("damage", ["missing", "cut", "foreign"])
def test_answers_that_cannot_be_read_are_refused_with_their_path(
    chat: ChatFormat, tmp_path: Path, damage: str
):
    path = tmp_path / "before.parquet"
    if damage == "cut":
        save_rollouts(path, answers_of(chat))
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "foreign":
        pq.write_table(pa.table({"example_id": ["a"]}), path)
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        load_rollouts(path)
    assert caught.value.where == str(path)


# -- figures -----------------------------------------------------------------------------------------


def test_the_figures_of_an_evaluation_are_those_worked_out_by_hand(chat: ChatFormat):
    scores = score_batch([0.0, 2.0, 1.0, 3.0], [1.0, 2.0, 0.0, 5.0])
    found = fixed_metrics(scores)
    assert {name: value for name, value in found.items() if not name.endswith(("_low", "_high"))} == {
        "eval/d_acc": 0.625,  # win, tie, loss, win
        "eval/score_diff": 0.5,  # (1 + 0 − 1 + 2)/4
        "eval/auc": 8.5 / 16,
        "eval/teacher_score_mean": 2.0,
        "eval/student_score_mean": 1.5,
    }
    assert found["eval/d_acc_low"] < 0.625 < found["eval/d_acc_high"]


def test_the_policy_of_the_moment_is_judged_under_names_of_its_own(chat: ChatFormat):
    answers = TextAnswers(
        rollouts=answers_of(
            chat, **lengths(4, 1, 2, 1), teacher_lengths=np.asarray([3, 3, 5, 5], dtype=np.int32)
        ),
        nll=np.asarray([1.0, 2.0, 3.0, 4.0], dtype=np.float32),
    )
    scores = score_batch([0.0, 2.0, 1.0, 3.0], [1.0, 2.0, 0.0, 5.0])
    found = current_metrics(scores, answers)
    assert {name: value for name, value in found.items() if not name.endswith(("_low", "_high"))} == {
        "eval/current_d_acc": 0.625,
        "eval/current_score_diff": 0.5,
        "eval/current_auc": 8.5 / 16,
        "eval/reward": 1.5,
        "eval/teacher_nll": 2.5,
        "eval/response_length": 1.0,  # 3, 0, 1, 0 before the end of turn
        "eval/teacher_length": 4.0,
        "eval/distinct_1": 4 / 6,  # one two one / two / three four
        "eval/distinct_2": 1.0,
    }
    assert not set(found) & set(fixed_metrics(scores)), "nothing else is logged under the fixed set's names"
    assert {*found, *fixed_metrics(scores)} <= set(METRICS)


@pytest.mark.parametrize(
    ("texts", "n", "share"),
    [
        (["a b a b"], 1, 2 / 4),
        (["a b a b"], 2, 2 / 3),  # (a b) (b a) (a b)
        (["a b", "a b"], 2, 1 / 2),  # over the set, and no pair across texts
        (["a", "b"], 2, 0.0),
        ([], 1, 0.0),
    ],
)
def test_distinct_n_is_the_share_of_different_word_n_grams(texts: list[str], n: int, share: float):
    assert distinct_n(texts, n) == pytest.approx(share)


# -- before and after --------------------------------------------------------------------------------


def sides(chat: ChatFormat) -> tuple[Answers, Answers]:
    before = Answers(
        rollouts=answers_of(chat, **lengths(4, 4, 4, 4), stop_reasons=(StopReason.LENGTH,) * 4),
        frozen=score_batch([-1.0] * 4, [1.0] * 4),
        last=score_batch([-3.0] * 4, [3.0] * 4),
        nll=np.asarray([4.0, 3.0, 3.0, 2.0], dtype=np.float32),
    )
    after = Answers(
        rollouts=answers_of(
            chat,
            [("a b c d",)] * 4,
            **lengths(2, 2, 2, 2),
            stop_reasons=(StopReason.STOP, StopReason.STOP, StopReason.STOP, StopReason.LENGTH),
        ),
        frozen=score_batch([0.0, 0.0, 2.0, 2.0], [1.0] * 4),
        last=score_batch([-2.0] * 4, [3.0] * 4),
        nll=np.asarray([2.0, 2.0, 1.0, 1.0], dtype=np.float32),
    )
    return before, after


def test_the_summary_compares_the_same_measure_before_and_after(chat: ChatFormat):
    found = {row.label: row for row in summary_rows(*sides(chat), warmed_up=True)}
    figures = {label: (row.before, row.after, row.improved) for label, row in found.items()}
    assert figures == {
        "reward of the student (warm-up critic, frozen; teacher 1.00)": (-1.0, 1.0, True),
        "teacher preferred, eval/d_acc (warm-up critic, frozen)": (100.0, 50.0, True),
        "teacher preferred, eval/d_acc (last critic)": (100.0, 100.0, None),
        "negative log-likelihood of the teacher's text": (3.0, 1.5, True),
        f"response length (teacher {np.mean(sides(chat)[0].rollouts.teacher_lengths):.1f})": (
            4.0,
            1.25,
            None,
        ),
        "responses cut at the limit": (100.0, 25.0, None),
        # (one two one | two | three four): 4 of 6 and 3 of 3; four times "a b c d": 4 of 16 and 3 of 12.
        "distinct-1": (pytest.approx(4 / 6), 0.25, None),
        "distinct-2": (1.0, 0.25, None),
    }


def test_without_a_warm_up_the_judge_is_named_as_what_it_is(chat: ChatFormat):
    labels = [row.label for row in summary_rows(*sides(chat), warmed_up=False)]
    assert not any("warm-up" in label for label in labels)
    assert labels[0].startswith("reward of the student (last critic")


def test_sample_rows_pair_the_answers_to_the_same_prompt(chat: ChatFormat):
    before, after = sides(chat)
    # After: e1 was lost, and the others came in another order.
    order = [3, 0, 2]
    fewer = PromptBatch(step=1, examples=tuple(prompt_batch().examples[i] for i in order))
    scores = ScoreBatch(
        student=np.asarray([30.0, 0.0, 20.0], dtype=np.float32),
        teacher=np.zeros(3, dtype=np.float32),
        critic_version=0,
    )
    later = dataclasses.replace(
        after,
        rollouts=rollout_batch(chat, fewer, texts=[("now 3",), ("now 0",), ("now 2",)]),
        frozen=scores,
    )
    rows = sample_rows(prompt_batch(), before, later)
    assert [(row.prompt, row.teacher, row.before, row.after, row.after_score) for row in rows] == [
        (PROMPTS[0], TEACHER[0], "one two one", "now 0", 0.0),
        (PROMPTS[2], TEACHER[2], "three four", "now 2", 20.0),
        (PROMPTS[3], TEACHER[3], "", "now 3", 30.0),
    ]
    assert {(row.teacher_score, row.before_score) for row in rows} == {(1.0, -1.0)}
