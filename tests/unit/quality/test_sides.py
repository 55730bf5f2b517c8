"""A policy that answers and a critic that scores, on tiny real models."""

from __future__ import annotations

from pathlib import Path

import pytest

from gad_ray.batch import Message
from gad_ray.config import load_config
from gad_ray.errors import ConfigError, ModelError
from gad_ray.evaluation.scoring import score_rows
from gad_ray.models.chat import ChatFormat
from gad_ray.models.source import describe_model
from gad_ray.quality.settings import PolicySettings
from tests.unit.builders import critic_config, critic_learner
from tests.unit.quality.rows import clean_rows, figures_of, report_of


@pytest.fixture(scope="module")
def critic_dir(tied_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("exports") / "critic"
    critic_learner(critic_config(tied_model)).export(directory)
    return directory


def policy(model: Path, **changed: object) -> PolicySettings:
    settings = {"max_tokens": 8, "engine": "transformers", **changed}
    return PolicySettings(model=str(model), **settings)  # type: ignore[arg-type]


def test_a_policy_counts_tokens_and_answers_a_draw_that_does_not_hang_on_the_order_of_rows(
    tmp_path: Path, tied_model: Path, chat: ChatFormat
):
    rows = clean_rows(60)
    figures = figures_of(tmp_path, rows, policy=policy(tied_model), num_drawn=25)
    tokens = [len(chat.response_ids(row["teacher_response"])) for row in rows]
    assert figures.unit == f"tokens of {tied_model}"
    assert figures.answer_lengths.longest == max(tokens)
    comparison = figures.comparison
    assert comparison is not None
    assert comparison.num_prompts == comparison.lengths.count == 25
    assert comparison.students.sampled
    assert comparison.students.settings["max_tokens"] == 8
    # Decoded and encoded again, what was cut at 8 tokens may have a few more or fewer.
    assert 0 < comparison.lengths.mean < 20
    assert comparison.cut.share > 0.5
    again = figures_of(tmp_path, rows[::-1], policy=policy(tied_model), num_drawn=25).comparison
    assert again is not None
    assert (again.lengths, again.teacher_lengths) == (comparison.lengths, comparison.teacher_lengths)


def test_answers_cut_at_the_limit_are_a_finding_with_the_limit_that_the_teacher_needs(
    tmp_path: Path, tied_model: Path
):
    report = report_of(tmp_path, clean_rows(30), policy=policy(tied_model), num_drawn=20)
    found = {finding.rule: finding for finding in report.findings}
    needed = report.figures.answer_lengths.p95
    (override,) = [o for o in found["student-cut"].overrides if o.startswith("rollout.max_response_tokens=")]
    assert needed < int(override.partition("=")[2]) < 2 * needed + 16
    assert any(
        o.startswith("reward.format=[{name: length_window") for o in found["length-shortcut"].overrides
    )


def test_a_student_that_is_cut_where_the_teacher_has_room_is_not_given_a_higher_limit(
    tmp_path: Path, tied_model: Path
):
    rows = [{**row, "teacher_response": "Yes."} for row in clean_rows(30)]
    report = report_of(tmp_path, rows, policy=policy(tied_model, max_tokens=32), num_drawn=20)
    found = {finding.rule: finding for finding in report.findings}
    assert found["student-cut"].overrides == ("critic.truncated=exclude",)
    assert "soft_tokens" in found["length-shortcut"].overrides[0]


def test_every_override_that_is_made_for_the_data_is_one_that_a_recipe_takes(
    tmp_path: Path, tied_model: Path
):
    rows = clean_rows(30)
    rows[0]["content"] += " so" * 3000
    rows[1]["teacher_response"] += " so" * 4000
    report = report_of(tmp_path, rows, policy=policy(tied_model), num_drawn=20)
    overrides = [o for finding in report.findings for o in finding.overrides]
    assert {o.partition("=")[0] for o in overrides} >= {
        "data.max_prompt_tokens",
        "data.max_teacher_tokens",
        "rollout.max_response_tokens",
        "reward.format",
    }
    for override in overrides:
        load_config("quickstart", [override])


def test_texts_beyond_the_limits_of_the_configuration_are_found_with_the_limit_they_need(
    tmp_path: Path, tied_model: Path, chat: ChatFormat
):
    rows = clean_rows(25, students=True)
    rows[0]["content"] += " so" * 3000
    rows[1]["teacher_response"] += " so" * 4000
    report = report_of(tmp_path, rows, policy=policy(tied_model))
    found = {finding.rule: finding for finding in report.findings}
    prompt = len(chat.prompt_ids((Message(role="user", content=rows[0]["content"]),)))
    answer = len(chat.response_ids(rows[1]["teacher_response"]))
    for rule, key, needed, line in (
        ("long-prompts", "data.max_prompt_tokens", prompt, 1),
        ("long-answers", "data.max_teacher_tokens", answer, 2),
    ):
        assert needed > 2048
        assert found[rule].value == pytest.approx(1 / 25)
        assert found[rule].samples[0].place.endswith(f":{line}")
        name, _, value = found[rule].overrides[0].partition("=")
        assert name == key
        assert needed <= int(value) < needed + 16


def test_a_conversation_that_the_policys_template_refuses_is_unusable(tmp_path: Path, tied_model: Path):
    template = tmp_path / "strict.jinja"
    template.write_text(
        "{% for message in messages %}{% if message['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "<|im_start|>{{ message['role'] }} {{ message['content'] }}<|im_end|>{% endfor %}"
    )
    rows = clean_rows(25, students=True)
    rows[4]["content"] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    figures = figures_of(tmp_path, rows, policy=policy(tied_model, chat_template=str(template)))
    assert figures.num_usable == 24
    (found,) = figures.rejected.values()
    assert found.samples[0].place.endswith(":5")
    assert "no system" in found.samples[0].note


def test_rows_with_answers_of_a_student_keep_them_and_the_policy_only_counts(
    tmp_path: Path, tied_model: Path
):
    comparison = figures_of(tmp_path, clean_rows(25, students=True), policy=policy(tied_model)).comparison
    assert comparison is not None
    assert not comparison.students.sampled
    assert comparison.lengths.count == 25


def test_prompts_too_long_for_the_policy_are_counted_and_left_out(tmp_path: Path, tied_model: Path):
    rows = clean_rows(20)
    rows[3]["content"] = "so " * describe_model(str(tied_model)).architecture.max_positions
    comparison = figures_of(tmp_path, rows, policy=policy(tied_model)).comparison
    assert comparison is not None
    assert (comparison.students.num_failed, comparison.num_prompts) == (1, 19)
    with pytest.raises(ModelError, match="no prompt leaves room"):
        figures_of(tmp_path, rows, policy=policy(tied_model, max_tokens=10_000))


def test_a_critic_gives_both_sides_the_scores_that_the_score_command_gives(tmp_path: Path, critic_dir: Path):
    rows = clean_rows(24, students=True)
    comparison = figures_of(tmp_path, rows, critic=critic_dir).comparison
    assert comparison is not None
    assert comparison.scores is not None
    teacher = score_rows(critic_dir, [{k: row[k] for k in ("content", "teacher_response")} for row in rows])
    student = score_rows(
        critic_dir, [{"content": row["content"], "response": row["student_response"]} for row in rows]
    )
    gaps = [float(str(t["score"])) - float(str(s["score"])) for t, s in zip(teacher, student, strict=True)]
    assert comparison.scores.gap == pytest.approx(sum(gaps) / len(gaps), abs=1e-5)
    assert comparison.scores.teacher_better.value == pytest.approx(sum(g > 0 for g in gaps) / len(gaps))
    assert sum(gap.num_pairs for gap in comparison.by_length) == 24
    assert all(gap.score_gap is not None for gap in comparison.by_length)


def test_a_critic_scores_a_draw_and_tells_pairs_too_long_for_it(tmp_path: Path, critic_dir: Path):
    rows = clean_rows(12, students=True)
    rows[0]["student_response"] = "so " * 5000
    scores = figures_of(tmp_path, rows, critic=critic_dir, num_drawn=12).comparison
    assert scores is not None
    assert scores.scores is not None
    assert (scores.scores.num_pairs, scores.scores.num_too_long) == (11, 1)
    few = figures_of(tmp_path, rows[1:], critic=critic_dir, num_drawn=5).comparison
    assert few is not None
    assert few.scores is not None
    assert few.scores.num_pairs == 5


def test_a_critic_asked_now_stands_in_for_scores_that_came_with_the_rows(tmp_path: Path, critic_dir: Path):
    rows = [{**row, "teacher_score": 100.0, "student_score": 0.0} for row in clean_rows(8, students=True)]
    comparison = figures_of(tmp_path, rows, critic=critic_dir, num_drawn=4).comparison
    assert comparison is not None
    assert comparison.scores is not None
    assert comparison.scores.num_pairs == 4
    assert comparison.scores.gap < 50


def test_a_critic_without_a_student_is_refused(tmp_path: Path, critic_dir: Path):
    with pytest.raises(ConfigError, match="none of a student") as caught:
        figures_of(tmp_path, clean_rows(5), critic=critic_dir)
    assert "--policy" in str(caught.value.hint)


def test_an_engine_that_there_is_not_is_refused(tied_model: Path):
    with pytest.raises(ConfigError, match="no engine 'vlm'"):
        policy(tied_model, engine="vlm")
