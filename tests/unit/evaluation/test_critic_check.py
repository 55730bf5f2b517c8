"""A critic by itself on one's own data: figures worked out from its values, and the verdict."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from gad_ray.critics.value_head import ValueHeadCritic
from gad_ray.evaluation.critic_check import (
    CheckedRow,
    check_critic,
    doubled_word,
    fitting_rows,
    other_punctuation,
)
from gad_ray.health.critic import CriticFigures, Moved, TokenFigures, judge_critic
from gad_ray.health.critic_texts import CRITIC_TEXTS, tell
from gad_ray.models.critic import CriticModel
from gad_ray.models.pairs import Pair
from tests.unit.builders import PROMPTS, STUDENT, TEACHER, critic_config, critic_learner, pair


def opened_of(tied_model: Path, *, scale: float = 1.0, level: float = 0.0) -> ValueHeadCritic:
    critic = critic_learner(critic_config(tied_model)).model.eval()
    with torch.no_grad():
        critic.head.weight.mul_(scale)
    critic.head.register_forward_hook(lambda _, __, values: values + level)
    return ValueHeadCritic(model=critic, step=7, temperature=5.0)


ROWS = [
    CheckedRow(messages=pair(prompt, "").messages, teacher=teacher, student=students[0])
    for prompt, teacher, students in zip(PROMPTS, TEACHER, STUDENT, strict=False)
]


def score(critic: CriticModel, row: CheckedRow, text: str) -> float:
    return float(critic.score([Pair(row.messages, text)], micro_batch_tokens=8192)[0])


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("Yes.", "Yes!"),
        ("Yes", "Yes."),
        ("好。", "好！"),
        ("好", "好。"),
        ("Really?\n", "Really.\n"),
        ("", ""),
    ],
)
def test_the_final_punctuation_mark_is_changed_or_set(text: str, changed: str):
    assert other_punctuation(text) == changed


@pytest.mark.parametrize(
    ("text", "changed"),
    [("a b c", "a b b c"), ("one", "one one"), ("天很蓝", "天很很蓝"), ("", ""), (" \n", " \n")],
)
def test_the_word_in_the_middle_is_written_twice(text: str, changed: str):
    assert doubled_word(text) == changed


def test_the_figures_are_those_of_the_critics_own_scores_and_values(tied_model: Path):
    opened = opened_of(tied_model, scale=20.0)
    critic = opened.model
    found = check_critic(opened, ROWS)
    teacher = np.asarray([score(critic, row, row.teacher) for row in ROWS])
    student = np.asarray([score(critic, row, row.student or "") for row in ROWS])
    assert found.scores["critic/d_acc"] == np.mean((teacher > student) + 0.5 * (teacher == student))
    assert found.scores["critic/score_diff"] == pytest.approx(float(np.mean(teacher - student)), abs=1e-5)
    both = np.concatenate([teacher, student])
    assert found.score_mean == pytest.approx(both.mean(), abs=1e-5)
    assert found.score_std == pytest.approx(both.std(), abs=1e-5)
    texts = dict.fromkeys((row.messages, text) for row in ROWS for text in (row.teacher, row.student or ""))
    values = np.concatenate(
        [critic.score_rows([critic.encoder.encode(Pair(*text))])[1][0] for text in texts]
    ).astype(np.float64)
    assert found.tokens.count == len(values)
    assert found.tokens.mean == pytest.approx(values.mean(), abs=1e-5)
    assert found.tokens.std == pytest.approx(values.std(), abs=1e-5)
    assert found.tokens.share_small == pytest.approx(np.mean(np.abs(values) < 0.1), abs=0.02)
    moved = np.abs([score(critic, row, other_punctuation(row.teacher)) for row in ROWS] - teacher)
    assert found.punctuation is not None
    assert found.punctuation.largest == pytest.approx(moved.max(), abs=1e-5)
    assert found.punctuation.largest > 1e-3
    assert found.similar is not None
    moved = np.abs([score(critic, row, doubled_word(row.teacher)) for row in ROWS] - teacher)
    assert found.similar.mean == pytest.approx(moved.mean(), abs=1e-5)
    assert found.same_call == 0.0
    assert found.same_apart <= found.same_tolerance
    assert (found.num_rows, found.num_pairs, found.num_nonfinite) == (len(ROWS), len(ROWS), 0)


def test_rows_without_a_students_answer_have_no_difference_and_long_ones_are_left_out(tied_model: Path):
    opened = opened_of(tied_model)
    alone = [dataclasses.replace(row, student=None) for row in ROWS]
    found = check_critic(opened, alone)
    assert found.num_pairs == 0
    assert not {"critic/d_acc", "critic/score_diff"} & set(found.scores)
    long = dataclasses.replace(ROWS[0], student="word " * 5000)
    assert fitting_rows(opened.model, [long, *ROWS]) == ROWS


@pytest.mark.parametrize(
    ("scale", "level", "rules"),
    [
        (0.0, 0.0, {"token-values-collapsed", "score-collapse"}),
        (1.0, float("nan"), {"critic-not-finite"}),
        (0.0, 30.0, {"token-values-collapsed", "token-values-extreme", "mean-score-far-from-zero"}),
    ],
)
def test_a_sick_critic_is_named_as_what_it_is(tied_model: Path, scale: float, level: float, rules: set[str]):
    figures = check_critic(opened_of(tied_model, scale=scale, level=level), ROWS)
    fired = judge_critic(figures).fired
    assert rules <= {one.finding.rule for one in fired}
    assert judge_critic(figures, language="zh").verdict.startswith("严重异常")


def test_a_critic_that_reads_the_last_token_alone_is_told_that_punctuation_decides(tied_model: Path):
    """Mean pooling divides a mark's noise by the length; the pooling of the last token takes it whole."""
    opened = opened_of(tied_model, scale=200.0)
    critic = opened.model
    with_last = CriticModel(
        critic.backbone,
        critic.head,
        chat=critic.encoder.chat,
        pooling=critic_config(tied_model, pooling={"name": "last"}).pooling,
        max_tokens=critic.encoder.max_tokens,
        dtype=critic.dtype,
    )
    long = [dataclasses.replace(row, teacher=" ".join([row.teacher] * 8), student=None) for row in ROWS]
    by_mean = check_critic(opened, long).punctuation
    figures = check_critic(dataclasses.replace(opened, model=with_last), long)
    assert by_mean is not None
    assert figures.punctuation is not None
    assert figures.punctuation.p95 > max(0.3, 2 * by_mean.p95)
    assert "punctuation-decides" in {one.finding.rule for one in judge_critic(figures).fired}


def healthy(**changed: object) -> CriticFigures:
    moved = Moved(mean=0.05, p95=0.1, largest=0.2, count=50)
    scores = {
        "critic/teacher_score_mean": 1.8,
        "critic/teacher_score_std": 1.0,
        "critic/student_score_mean": -0.2,
        "critic/student_score_std": 1.2,
        "critic/d_acc": 0.8,
        "critic/score_diff": 2.0,
        "critic/temperature": 5.0,
    }
    figures = CriticFigures(
        step=253,
        num_rows=50,
        num_pairs=50,
        num_nonfinite=0,
        tokens=TokenFigures(count=999, mean=0.8, std=1.5, largest=6.0, share_large=0.0, share_small=0.05),
        scores=scores,
        score_mean=0.8,
        score_std=1.5,
        score_largest=5.0,
        same_call=0.0,
        same_apart=1e-6,
        same_tolerance=1e-4,
        punctuation=moved,
        similar=moved,
    )
    return dataclasses.replace(figures, **changed)  # type: ignore[arg-type]


def test_a_healthy_critic_breaks_no_rule_and_is_in_its_band():
    verdict = judge_critic(healthy())
    assert verdict.fired == ()
    assert verdict.verdict == "nothing wrong with this critic on these data"
    assert any("target band" in line for line in verdict.observations)
    assert judge_critic(healthy(scores={}, num_pairs=0)).fired == ()


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"punctuation": Moved(mean=0.1, p95=0.3, largest=0.3, count=9)}, "punctuation-decides"),
        ({"similar": Moved(mean=0.2, p95=0.5, largest=0.6, count=9)}, "similar-answers-apart"),
        ({"same_call": 1e-7}, "same-text-scored-apart"),
        ({"same_apart": 2e-4}, "same-text-scored-apart"),
        ({"score_mean": -5.1}, "mean-score-far-from-zero"),
        ({"scores": {"critic/d_acc": 0.55, "critic/score_diff": 1.5}}, "critic-blind"),
        ({"scores": {"critic/d_acc": 0.97, "critic/score_diff": 2.0}}, "critic-overconfident"),
        ({"scores": {"critic/d_acc": 0.7, "critic/score_diff": 0.3}}, "scores-indistinct"),
        ({"scores": {"critic/d_acc": 0.7, "critic/score_diff": 6.0}}, "scores-too-far-apart"),
    ],
)
def test_one_figure_out_of_its_band_breaks_its_rule_alone(changed: dict[str, object], rule: str):
    fired = judge_critic(healthy(**changed)).fired
    assert [one.finding.rule for one in fired] == [rule]
    assert "judged on" not in fired[0].finding.evidence
    assert "{" not in fired[0].finding.meaning, "its limit stands in its text"
    assert (
        judge_critic(healthy(**changed), language="zh").fired[0].finding.meaning != fired[0].finding.meaning
    )


def test_every_text_of_a_critics_diagnosis_is_there_in_both_languages():
    for texts in CRITIC_TEXTS.values():
        assert set(texts) == {"en", "zh"}
        assert all(texts.values())
    assert all(set(texts) == {"en", "zh"} for texts in tell.texts.values())
