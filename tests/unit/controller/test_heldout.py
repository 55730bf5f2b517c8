"""What a run finds out of its own evaluation, with a critic that scores by length alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from gad_ray.actors.groups import ActorGroups
from gad_ray.batch import Fingerprint, PromptBatch, RolloutBatch, SamplingSettings, ScoreBatch
from gad_ray.config import load_config
from gad_ray.controller.heldout import GreedyAnswers, HeldOut, save_nll
from gad_ray.evaluation.heldout import save_rollouts
from gad_ray.models.chat import ChatFormat
from gad_ray.observability.run_dir import RunDirectory
from tests.unit.builders import prompt_batch, rollout_batch, sampling

CRITIC = Fingerprint(weights="a", head="b", template="c", tokenizer="d", pooling="e", dtype="float32")
TEXTS = (("one",), ("three four",), ("",), ("five",))


@pytest.fixture
def prompts() -> PromptBatch:
    return prompt_batch()


def heldout_of(prompts: PromptBatch, chat: ChatFormat, root: Path, *, extra: float = 0.0) -> HeldOut:
    """The evaluation of a run whose critic gives every answer ``extra`` on top of its length."""

    def score(
        _exported: str | None, asked: PromptBatch, rollouts: Sequence[RolloutBatch]
    ) -> list[ScoreBatch]:
        teacher = np.asarray([len(e.teacher_response) for e in asked.examples], dtype=np.float32)
        return [
            ScoreBatch(
                teacher=teacher,
                student=np.asarray([len(text) + extra for text in batch.texts], dtype=np.float32),
                critic_version=3,
                fingerprint=CRITIC,
            )
            for batch in rollouts
        ]

    groups = SimpleNamespace(critic=SimpleNamespace(score_fixed=score))
    directory = RunDirectory(root=root)
    answers = rollout_batch(chat, prompts, texts=TEXTS, sampling=sampling(num_responses=1, temperature=0.6))
    save_rollouts(directory.answers_before, answers, prompts)
    save_nll(directory, np.ones(len(prompts), dtype=np.float32))
    config = load_config("quickstart", ["evaluation.resample=false"])
    evaluation = HeldOut(
        config, directory=directory, examples=prompts.examples, groups=cast("ActorGroups", groups)
    )
    evaluation.load_before(step=0)
    return evaluation


@pytest.mark.parametrize("extra", [0.0, 0.25])
def test_identical_text_is_scored_by_the_way_of_an_answer(
    prompts: PromptBatch, chat: ChatFormat, tmp_path: Path, extra: float
) -> None:
    found = heldout_of(prompts, chat, tmp_path, extra=extra).evaluate(step=1, policy_version=0)
    assert found["eval/identical_text_diff"] == extra
    lengths = [len(e.teacher_response) for e in prompts.examples]
    assert found["eval/student_score_mean"] == np.mean([len(group[0]) for group in TEXTS]) + extra
    assert found["eval/teacher_score_mean"] == np.mean(lengths)


def test_the_step_after_an_evaluation_says_whether_its_critic_is_the_runs(
    prompts: PromptBatch, chat: ChatFormat, tmp_path: Path
) -> None:
    evaluation = heldout_of(prompts, chat, tmp_path)
    same, other = ({"critic/fingerprint": float(number)} for number in (CRITIC.number, CRITIC.number + 1))
    assert evaluation.same_critic(same) == {}, "nothing was evaluated yet"
    for metrics, told in ((same, 1.0), (other, 0.0)):
        evaluation.evaluate(step=1, policy_version=0)
        assert evaluation.same_critic(metrics) == {"critic/same_as_evaluated": told}
        assert evaluation.same_critic(metrics) == {}, "it is asked once"
    evaluation.evaluate(step=2, policy_version=0)
    assert evaluation.same_critic({}) == {}, "the step was not recorded"


def test_the_sampling_of_the_fixed_answers_is_what_they_were_drawn_with(
    prompts: PromptBatch, chat: ChatFormat, tmp_path: Path
) -> None:
    evaluation = heldout_of(prompts, chat, tmp_path)
    assert evaluation.sampling is not None
    assert evaluation.sampling.temperature == 0.6
    config = load_config("quickstart")
    none = HeldOut(
        config, directory=RunDirectory(root=tmp_path), examples=(), groups=cast("ActorGroups", None)
    )
    assert none.sampling is None


def test_a_resumed_run_compares_its_critic_with_the_one_that_was_evaluated_before(
    prompts: PromptBatch, chat: ChatFormat, tmp_path: Path
) -> None:
    heldout_of(prompts, chat, tmp_path).evaluate(step=4, policy_version=0)
    other = {"critic/fingerprint": float(CRITIC.number + 1)}
    for step, told in ((4, {"critic/same_as_evaluated": 0.0}), (3, {})):
        resumed = heldout_of(prompts, chat, tmp_path)
        resumed.load_before(step=step)
        assert resumed.same_critic(other) == told


# -- greedy answers ------------------------------------------------------------------------------------


@dataclass
class Answerers:
    """Groups whose policy gives every prompt the text of its version, greedily or not."""

    chat: ChatFormat
    version: int = 0
    texts: dict[int, tuple[str, ...]] = field(default_factory=dict[int, tuple[str, ...]])
    asked: list[SamplingSettings] = field(default_factory=list[SamplingSettings])

    def generate(self, prompts: PromptBatch, settings: SamplingSettings) -> Any:
        self.asked.append(settings)
        texts = [(text,) for text in self.texts[self.version][: len(prompts)]]
        batch = rollout_batch(self.chat, prompts, texts=texts, sampling=settings)
        batch = replace(batch, policy_versions=np.full(len(batch), self.version))
        return SimpleNamespace(rollouts=SimpleNamespace(join=lambda: batch))

    @property
    def rollout(self) -> Answerers:
        return self

    def receipts(self, _refs: Any, *, what: str) -> None:
        assert "greedy" in what


def greedy_of(
    prompts: PromptBatch, root: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str
) -> GreedyAnswers:
    config = load_config("quickstart", list(overrides))
    return GreedyAnswers(config, directory=RunDirectory(root=root), examples=prompts.examples)


def test_the_share_of_greedy_answers_that_training_left_as_they_were(
    prompts: PromptBatch, chat: ChatFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {0: ("a", "b", "c", "d"), 1: ("a", "b", "c", "other")}
    actors = Answerers(chat, texts=texts)
    groups = cast("ActorGroups", actors)
    answers = greedy_of(prompts, tmp_path, monkeypatch, "rollout.temperature=0.6")
    assert answers.share_unchanged(groups=groups) is None, "none were kept"
    answers.take_before(groups=groups)
    assert (actors.asked[0].temperature, actors.asked[0].top_p, actors.asked[0].repetition_penalty) == (
        0.0,
        1.0,
        1.0,
    )
    assert answers.share_unchanged(groups=groups, policy_version=0) == 1.0
    assert len(actors.asked) == 1, "the same weights are not asked again"
    actors.version = 1
    # A resumed run finds them on disk.
    again = greedy_of(prompts, tmp_path, monkeypatch)
    assert again.share_unchanged(groups=groups, policy_version=1) == 0.75


def test_greedy_answers_are_of_so_many_prompts_or_of_none(
    prompts: PromptBatch, chat: ChatFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actors = Answerers(chat, texts={0: ("a", "b"), 1: ("a", "other")})
    groups = cast("ActorGroups", actors)
    two = greedy_of(prompts, tmp_path / "two", monkeypatch, "evaluation.greedy_prompts=2")
    two.take_before(groups=groups)
    actors.version = 1
    assert two.share_unchanged(groups=groups) == 0.5
    none = greedy_of(prompts, tmp_path / "none", monkeypatch, "evaluation.greedy_prompts=0")
    none.take_before(groups=groups)
    assert none.share_unchanged(groups=groups) is None
    assert len(actors.asked) == 2


def test_the_last_evaluation_logs_the_share_and_no_other_does(
    prompts: PromptBatch, chat: ChatFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actors = Answerers(chat, texts={0: ("a", "b", "c", "d"), 1: ("a", "b", "c", "other")})
    greedy_of(prompts, tmp_path, monkeypatch).take_before(groups=cast("ActorGroups", actors))
    evaluation = heldout_of(prompts, chat, tmp_path)
    evaluation._groups.rollout = cast("Any", actors)  # pyright: ignore[reportPrivateUsage]
    actors.version = 1
    assert "eval/greedy_unchanged" not in evaluation.evaluate(step=1, policy_version=1)
    assert evaluation.evaluate(step=2, policy_version=1, last=True)["eval/greedy_unchanged"] == 0.75
    assert len(actors.asked) == 2
