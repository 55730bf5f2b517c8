"""What the reproductions share: data, one rollout engine, the warm-up's samples, and the critic they make."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from torch import Tensor

from gad_ray.auto import resolve
from gad_ray.batch import (
    Example,
    Float32,
    Metrics,
    PromptBatch,
    RolloutBatch,
    SamplingSettings,
    ScoreBatch,
    TrainBatch,
)
from gad_ray.config.critic import CriticConfig
from gad_ray.config.policy import PolicyConfig
from gad_ray.config.run import RunConfig
from gad_ray.core.preference import preference
from gad_ray.data.cursor import PromptCursor
from gad_ray.data.dataset import LoadedData
from gad_ray.learners.collective import LocalCollective
from gad_ray.learners.critic import CriticLearner
from gad_ray.learners.policy import PolicyLearner
from gad_ray.models.chat import ChatFormat, configured_chat_format
from gad_ray.models.pairs import Pair
from gad_ray.models.run_data import load_run_data
from gad_ray.models.source import resolve_model
from gad_ray.rewards.stage import rewards_of, train_batch
from gad_ray.rollout.worker import RolloutWorker, probe_row

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Samples:
    """Prompts with the teacher's text, and the policy's responses to them."""

    prompts: PromptBatch
    rollouts: RolloutBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a critic judges answers: from its scores of the teacher's and the student's, prompt by prompt.

    Attributes:
        d_acc: Share of pairs in which the teacher scores higher.
        auc: The same over all pairs of a teacher's and a student's answer, whatever their prompts.
        score_diff: Mean of s_T − s_S.
        student: Mean score of the student's answers.
        std: Standard deviation of all scores together.
    """

    d_acc: float
    auc: float
    score_diff: float
    student: float
    std: float

    @classmethod
    def of(cls, scores: ScoreBatch) -> Verdict:
        """The verdict that scores amount to."""
        return cls(
            d_acc=preference(scores.teacher, scores.student),
            auc=preference(*(a.ravel() for a in np.meshgrid(scores.teacher, scores.student))),
            score_diff=float(np.mean(scores.teacher - scores.student)),
            student=float(scores.student.mean()),
            std=float(np.concatenate([scores.teacher, scores.student]).std()),
        )


class Bench:
    """One workplace for several failures, so that what they share is made once.

    Args:
        config: The game with our defaults.
        tell: Is told what is being done, a line at a time.
    """

    def __init__(self, config: RunConfig, *, tell: Callable[[str], None]) -> None:
        self.config = config = resolve(config).config
        self.tell = tell
        model = config.policy.model
        self.chat: ChatFormat = configured_chat_format(resolve_model(model.model), model)
        self.data = self._load()
        self._default_state: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        self._made: dict[str, object] = {}

    @property
    def warmup_steps(self) -> int:
        """Steps in which a critic learns to tell the teacher from the policy as it came."""
        return self._steps(self.config.stages.warmup)

    @property
    def game_steps(self) -> int:
        """Steps of a game."""
        return self._steps(self.config.stages.adversarial)

    # -- samples --------------------------------------------------------------------------------------

    @cached_property
    def worker(self) -> RolloutWorker:
        """The engine that draws all responses, of whichever policy."""
        self.tell("starting the rollout engine")
        return RolloutWorker.build(self.config)

    @property
    def warmup(self) -> tuple[Samples, ...]:
        """The warm-up's samples: the policy stands still, so that they serve every critic."""
        return self._first_answers[0]

    @property
    def heldout(self) -> Samples:
        """One answer of the policy as it came to each held-out prompt."""
        return self._first_answers[1]

    @property
    def greedy(self) -> Samples:
        """The same, greedy."""
        return self._first_answers[2]

    @cached_property
    def _first_answers(self) -> tuple[tuple[Samples, ...], Samples, Samples]:
        """All that is wanted of the policy as it came; taken at once, before the engine gets other weights."""
        self.tell("answering all prompts with the policy as it came")
        return self.answers(self.warmup_steps), self.answer_heldout(), self.answer_heldout(greedy=True)

    def answers(self, num_steps: int, *, first_step: int = 1) -> tuple[Samples, ...]:
        """Samples of the policy that the engine holds, on the prompts of some steps in their order."""
        return tuple(self.sample(prompts) for prompts in self.prompts(num_steps, first_step=first_step))

    def prompts(self, num_steps: int, *, first_step: int = 1) -> list[PromptBatch]:
        """The prompts of consecutive steps, in the order of a run."""
        train, data = self.data.train, self.config.data
        cursor = PromptCursor([e.id for e in train], seed=data.seed, batch_size=self.config.prompts_per_step)
        drawn = [cursor.next_batch() for _ in range(first_step - 1 + num_steps)]
        return [
            PromptBatch(step=step, examples=tuple(train[i] for i in indices))
            for step, indices in enumerate(drawn, start=1)
            if step >= first_step
        ]

    def sample(self, prompts: PromptBatch) -> Samples:
        """A group of responses to every prompt."""
        rollout = self.config.rollout
        drawn = self.sampling(rollout.responses_per_prompt, rollout.temperature)
        return Samples(prompts, self.worker.generate(prompts, drawn))

    def answer_heldout(self, *, greedy: bool = False) -> Samples:
        """One answer to each held-out prompt, of the policy that the engine holds."""
        prompts = PromptBatch(step=0, examples=self.data.heldout)
        temperature = 0.0 if greedy else self.config.rollout.temperature
        return Samples(prompts, self.worker.generate(prompts, self.sampling(1, temperature)))

    def sampling(self, num_responses: int, temperature: float) -> SamplingSettings:
        """The config's sampling settings with these."""
        own = SamplingSettings.of(self.config.rollout, num_responses=num_responses, seed=self.config.seed)
        return replace(own, temperature=temperature)

    # -- learners ---------------------------------------------------------------------------------------

    def new_critic(self, config: CriticConfig | None = None) -> CriticLearner:
        """A critic that has learned nothing; with the game's settings when none are given."""
        return CriticLearner(
            config or self.config.critic,
            seed=self.config.seed,
            total_steps=self.warmup_steps + self.game_steps,
            collective=LocalCollective(),
            max_nonfinite_steps=self.config.limits.max_nonfinite_steps,
        )

    def train(self, critic: CriticLearner, samples: Sequence[Samples], *, what: str) -> list[Metrics]:
        """Let a critic learn from samples in their order; the metrics of every step."""
        self.tell(f"training {what} for {len(samples)} steps")
        return [dict(critic.score_and_update(one.prompts, one.rollouts)[1].metrics) for one in samples]

    def default_critic(self) -> CriticLearner:
        """The critic that the warm-up makes with our defaults; a copy of its own for every caller."""
        critic = self.new_critic()
        if self._default_state is None:
            self.train(critic, self.warmup, what="the critic with our defaults")
            tensors, plain = critic.state()
            self._default_state = ({name: t.clone() for name, t in tensors.items()}, dict(plain))
        else:
            critic.load_state(*self._default_state)
        return critic

    def new_policy(self, config: PolicyConfig | None = None) -> PolicyLearner:
        """The policy as it came, at the start of the game."""
        policy = PolicyLearner(
            config or self.config.policy,
            mini_batch_prompts=self.config.mini_batch_prompts,
            total_steps=self.game_steps,
            warmup_lr=None,
            collective=LocalCollective(),
            max_nonfinite_steps=self.config.limits.max_nonfinite_steps,
        )
        policy.begin_adversarial()
        return policy

    def train_batch(self, samples: Samples, scores: ScoreBatch) -> TrainBatch:
        """What a policy is trained on: the reward is the score alone, there are no format terms."""
        rewards = rewards_of(samples.rollouts, scores, self.config.reward)
        return train_batch(samples.rollouts, rewards, self.config.policy, prompts=samples.prompts)

    def load_engine(self, policy: PolicyLearner) -> None:
        """Give the engine a policy's weights; its answers from before are taken first."""
        _ = self._first_answers
        snapshot = policy.snapshot(dtype=self.config.rollout.dtype, probe=probe_row(self.chat))
        self.worker.load_weights(snapshot)

    def judge(self, critic: CriticLearner, samples: Samples) -> Verdict:
        """How a critic scores samples, without learning from them."""
        return Verdict.of(critic.score_batch(samples.prompts, samples.rollouts))

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What ``make`` gives; made at the first call for a name and kept for the later ones."""
        if name not in self._made:
            self._made[name] = make()
        return cast("T", self._made[name])

    def close(self) -> None:
        """Free the engine, if one was started."""
        if "worker" in self.__dict__:
            self.worker.close()

    def _steps(self, stage: Any) -> int:
        return int(
            stage.in_steps(num_prompts=len(self.data.train), prompts_per_step=self.config.prompts_per_step)
        )

    def _load(self) -> LoadedData:
        with tempfile.TemporaryDirectory() as scratch:
            return load_run_data(self.config, quarantine_path=Path(scratch) / "quarantine.jsonl")


def scores_of(critic: CriticLearner, examples: Sequence[Example], texts: Sequence[str]) -> Float32:
    """[N] float32 scores of texts as answers to the examples' prompts."""
    return critic.score([Pair(e.messages, text) for e, text in zip(examples, texts, strict=True)])
