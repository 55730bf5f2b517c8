"""The reward stage: from scores to rewards and advantages, over the whole batch of a step, once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gad_ray.batch import (
    Float32,
    FormatBatch,
    Metrics,
    PromptBatch,
    PromptFigures,
    RewardBatch,
    RolloutBatch,
    ScoreBatch,
    StopReason,
    TrainBatch,
)
from gad_ray.config import RunConfig
from gad_ray.config.policy import PolicyConfig
from gad_ray.config.reward import RewardConfig
from gad_ray.core.advantages import ADVANTAGES, Rewarded
from gad_ray.rewards.format_terms import FormatTerms, check_failures

_NO_SPREAD = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardReport:
    """What the controller is told of a step's rewards, which stay in the object store.

    Attributes:
        metrics: Means of the rewards and of their terms, lengths of the responses.
        figures: What the step has shown of its prompts.
    """

    metrics: Metrics
    figures: PromptFigures


class RewardStage:
    """Computes each response's reward once.

    Args:
        config: The run.

    Raises:
        ConfigError: If a reward function of the user's cannot be imported.
    """

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._format = FormatTerms(config.reward)

    def format(self, prompts: PromptBatch, rollouts: RolloutBatch) -> FormatBatch:
        """Ask every format term for its value of every response; needs no score."""
        return self._format(prompts, rollouts)

    def rewards(self, rollouts: RolloutBatch, scores: ScoreBatch, form: FormatBatch) -> RewardBatch:
        """The rewards of responses.

        Raises:
            TrainingError: If functions of the user's failed on a larger share of them than is allowed.
        """
        check_failures(form.total, self._config.reward)
        return rewards_of(rollouts, scores, self._config.reward, form)

    def train_batch(
        self,
        prompts: PromptBatch,
        rollouts: RolloutBatch,
        rewards: RewardBatch,
        *,
        penalty: Float32 | None = None,
    ) -> TrainBatch:
        """What the policy is trained on."""
        return train_batch(
            rollouts,
            rewards,
            self._config.policy,
            prompts=prompts,
            num_places=self._config.prompts_per_step,
            penalty=penalty,
        )

    def report(self, rollouts: RolloutBatch, scores: ScoreBatch, rewards: RewardBatch) -> RewardReport:
        """Metrics and the prompts' figures."""
        with_format = bool(self._config.reward.format)
        return RewardReport(
            metrics=reward_metrics(rollouts, rewards, with_format=with_format) | response_metrics(rollouts),
            figures=prompt_figures(rollouts, scores, rewards),
        )


def rewards_of(
    rollouts: RolloutBatch, scores: ScoreBatch, config: RewardConfig, form: FormatBatch | None = None
) -> RewardBatch:
    """r = w_D · D(x, y) + Σ w_i · f_i(y), in the order of the rollouts.

    Args:
        rollouts: The responses.
        scores: Their scores, in the same order.
        config: Weights and format terms.
        form: Values of the format terms; needed where there are any.
    """
    discriminator = np.float32(config.discriminator_weight) * scores.student
    if not config.format:
        return RewardBatch(
            step=rollouts.step,
            total=discriminator,
            discriminator=discriminator,
            format=np.zeros_like(discriminator),
        )
    if form is None:
        raise ValueError("format rewards are asked for and their values are not given")
    return RewardBatch(
        step=rollouts.step,
        total=discriminator + form.total,
        discriminator=discriminator,
        format=form.total,
        terms=form.values,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedRows:
    """[R] bool each: the responses that the policy is trained on, and why some others with a reward are not.

    Attributes:
        kept: Trained on.
        alone: The only ones of their group: nothing is left to compare them with.
        no_spread: In a group without spread, where such groups are dropped.
        surplus: In a group for which the batch has no place left.
    """

    kept: NDArray[np.bool_]
    alone: NDArray[np.bool_]
    no_spread: NDArray[np.bool_]
    surplus: NDArray[np.bool_]


def trained_rows(
    rollouts: RolloutBatch,
    rewards: RewardBatch,
    config: PolicyConfig,
    *,
    prompts: PromptBatch | None = None,
    num_places: int | None = None,
) -> TrainedRows:
    """Which responses the policy is trained on.

    Spread is that of the reward before any KL penalty, which differs between responses that are all alike to
    the critic.

    Args:
        rollouts: The responses.
        rewards: Their rewards; responses without are never trained on.
        config: Whether groups without spread are dropped.
        prompts: The step's prompts in the order in which they were drawn: the first have the places.
        num_places: Most groups to train on; all when None.
    """
    usable = rewards.usable
    alone, no_spread, surplus = (np.zeros_like(usable) for _ in range(3))
    drop = config.advantage.zero_spread == "drop"
    good: list[tuple[int, int]] = []
    for start, stop in rollouts.groups():
        size = int(usable[start:stop].sum())
        if size == 1:
            alone[start:stop] = usable[start:stop]
        elif drop and _spread(rewards, start, stop) < _NO_SPREAD:
            no_spread[start:stop] = usable[start:stop]
        elif size:
            good.append((start, stop))
    if num_places is not None and prompts is not None:
        place = {example.id: i for i, example in enumerate(prompts.examples)}
        good.sort(key=lambda bounds: place[rollouts.example_ids[bounds[0]]])
        for start, stop in good[num_places:]:
            surplus[start:stop] = usable[start:stop]
    kept = usable & ~alone & ~no_spread & ~surplus
    return TrainedRows(kept=kept, alone=alone, no_spread=no_spread, surplus=surplus)


def train_batch(
    rollouts: RolloutBatch,
    rewards: RewardBatch,
    config: PolicyConfig,
    *,
    prompts: PromptBatch | None = None,
    num_places: int | None = None,
    penalty: Float32 | None = None,
) -> TrainBatch:
    """The responses with their advantages.

    Args:
        rollouts: The responses.
        rewards: Their rewards.
        config: Which advantage, and which responses are left out.
        prompts: The step's prompts in the order in which they were drawn.
        num_places: Most groups to train on; all when None.
        penalty: [R] what is taken from the rewards first; nothing when None.
    """
    rows = trained_rows(rollouts, rewards, config, prompts=prompts, num_places=num_places)
    return TrainBatch(
        step=rollouts.step,
        prompt_tokens=rollouts.prompt_tokens,
        response_tokens=rollouts.response_tokens,
        logprobs=rollouts.logprobs,
        group=rollouts.group_index(),
        advantages=advantages_of(rollouts, rewards, config, kept=rows.kept, penalty=penalty),
        kept=rows.kept,
        policy_versions=rollouts.policy_versions,
        sampling=rollouts.sampling,
        penalty=penalty,
        num_alone=int(rows.alone.sum()),
        num_no_spread=int(rows.no_spread.sum()),
        num_surplus=int(rows.surplus.sum()),
    )


def advantages_of(
    rollouts: RolloutBatch,
    rewards: RewardBatch,
    config: PolicyConfig,
    *,
    kept: NDArray[np.bool_] | None = None,
    penalty: Float32 | None = None,
) -> Float32:
    """[R] float32 advantages.

    Args:
        rollouts: The responses.
        rewards: Their rewards.
        config: Which advantage.
        kept: [R] the responses that count, the others get 0; all when None.
        penalty: [R] what is taken from the rewards first; nothing when None.
    """
    kept = np.ones(len(rollouts), dtype=np.bool_) if kept is None else kept
    total = rewards.total if penalty is None else rewards.total - penalty
    batch = Rewarded(
        rewards=total[kept].astype(np.float64),
        group=rollouts.group_index()[kept],
        lengths=rollouts.response_tokens.lengths[kept],
    )
    advantages = np.zeros(len(rollouts), dtype=np.float32)
    advantages[kept] = ADVANTAGES.of(config.advantage)(batch, config.advantage).astype(np.float32)
    return advantages


def prompt_figures(rollouts: RolloutBatch, scores: ScoreBatch, rewards: RewardBatch) -> PromptFigures:
    """Gap and spread of every prompt, in the order of the rollouts."""
    bounds = rollouts.groups()
    gap = scores.teacher - scores.student
    return PromptFigures(
        example_ids=tuple(rollouts.example_ids[start] for start, _ in bounds),
        gap=np.asarray([gap[start:stop].mean() for start, stop in bounds], dtype=np.float32),
        has_spread=np.asarray([_spread(rewards, *b) >= _NO_SPREAD for b in bounds], dtype=np.bool_),
    )


def reward_metrics(rollouts: RolloutBatch, rewards: RewardBatch, *, with_format: bool) -> Metrics:
    """Means of the reward and of its terms, and the share of groups whose rewards do not differ.

    Over the responses that have a reward; those without are counted.
    """
    spread = [_spread(rewards, start, stop) for start, stop in rollouts.groups()]
    metrics: Metrics = {"actor/zero_spread_groups": float(np.mean(np.asarray(spread) < _NO_SPREAD))}
    usable = rewards.usable
    if with_format:
        metrics["reward/failed_samples"] = float(np.sum(~usable))
    if not usable.any():
        return metrics
    total, discriminator = rewards.total[usable], rewards.discriminator[usable]
    metrics |= {
        "critic/rewards/mean": float(total.mean()),
        "critic/rewards/std": float(total.std()),
        "critic/rewards/min": float(total.min()),
        "critic/rewards/max": float(total.max()),
        "reward/discriminator_mean": float(discriminator.mean()),
        "reward/discriminator_std": float(discriminator.std()),
    }
    if with_format:
        metrics["format/reward_avg"] = float(rewards.format[usable].mean())
        metrics |= {f"format/{name}": float(values[usable].mean()) for name, values in rewards.terms.items()}
    return metrics


def response_metrics(rollouts: RolloutBatch) -> Metrics:
    """Lengths of the policy's and the teacher's responses in the policy's tokens without end of turn, and how many were cut."""
    lengths, prompts = rollouts.text_lengths, rollouts.prompt_tokens.lengths
    firsts = [start for start, _ in rollouts.groups()]
    cut = [reason is StopReason.LENGTH for reason in rollouts.stop_reasons]
    return {
        "response_length/mean": float(lengths.mean()),
        "response_length/min": float(lengths.min()),
        "response_length/max": float(lengths.max()),
        "response_length/clip_ratio": float(np.mean(cut)),
        "response_length/teacher_mean": float(rollouts.teacher_lengths[firsts].mean()),
        "prompt_length/mean": float(prompts.mean()),
        "prompt_length/max": float(prompts.max()),
        "rollout/responses": float(len(rollouts)),
        "rollout/failed": float(rollouts.num_failed),
        "rollout/retried": float(rollouts.num_retried),
    }


def _spread(rewards: RewardBatch, start: int, stop: int) -> float:
    """Largest minus smallest reward of a group; 0 where none of it has a reward."""
    group = rewards.total[start:stop]
    group = group[~np.isnan(group)]
    return float(np.ptp(group)) if len(group) else 0.0
