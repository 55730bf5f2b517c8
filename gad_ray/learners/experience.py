"""From scores to rewards and advantages, over the whole batch of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gad_ray.batch import (
    Float32,
    Metrics,
    PromptBatch,
    PromptFigures,
    RolloutBatch,
    ScoreBatch,
    StopReason,
)
from gad_ray.config.policy import (
    AdvantageConfig,
    DrGrpoAdvantage,
    GrpoAdvantage,
    OpoAdvantage,
    PolicyConfig,
    RankAdvantage,
    ReinforcePpAdvantage,
)
from gad_ray.config.reward import RewardConfig
from gad_ray.core.advantages import (
    dr_grpo_advantages,
    grpo_advantages,
    opo_advantages,
    rank_advantages,
    reinforce_pp_advantages,
    rloo_advantages,
)
from gad_ray.learners.format_rewards import format_terms

_NO_SPREAD = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewards:
    """[R] float32 each: the total, and the weighted terms that add up to it.

    ``total`` and ``format`` are NaN for a response on which a reward function failed: it has no reward, and
    nothing may be trained on it. ``terms`` holds the format terms by name, before their weights.
    """

    total: Float32
    discriminator: Float32
    format: Float32
    terms: Mapping[str, Float32] = field(default_factory=dict[str, Float32])

    @property
    def usable(self) -> NDArray[np.bool_]:
        """[R] whether the response has a reward."""
        return ~np.isnan(self.total)


def rewards_of(
    rollouts: RolloutBatch, scores: ScoreBatch, config: RewardConfig, prompts: PromptBatch | None = None
) -> Rewards:
    """r = w_D · D(x, y) + Σ w_i · f_i(y), in the order of the rollouts.

    Args:
        rollouts: The responses.
        scores: Their scores, in the same order.
        config: Weights and format terms.
        prompts: The step's prompts; needed where there are format terms.
    """
    discriminator = np.float32(config.discriminator_weight) * scores.student
    if not config.format:
        return Rewards(total=discriminator, discriminator=discriminator, format=np.zeros_like(discriminator))
    if prompts is None:
        raise ValueError("format rewards are asked for and the prompts are not given")
    form = format_terms(rollouts, config, prompts)
    return Rewards(
        total=discriminator + form.total, discriminator=discriminator, format=form.total, terms=form.values
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
    rewards: Rewards,
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


def prompt_figures(rollouts: RolloutBatch, scores: ScoreBatch, rewards: Rewards) -> PromptFigures:
    """Gap and spread of every prompt, in the order of the rollouts."""
    bounds = rollouts.groups()
    gap = scores.teacher - scores.student
    return PromptFigures(
        example_ids=tuple(rollouts.example_ids[start] for start, _ in bounds),
        gap=np.asarray([gap[start:stop].mean() for start, stop in bounds], dtype=np.float32),
        has_spread=np.asarray([_spread(rewards, *b) >= _NO_SPREAD for b in bounds], dtype=np.bool_),
    )


def advantages_of(
    rollouts: RolloutBatch,
    rewards: Rewards,
    config: PolicyConfig,
    *,
    kept: NDArray[np.bool_] | None = None,
    penalty: Float32 | None = None,
) -> Tensor:
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
    # In double precision the mean of equal float32 rewards is that reward. Rounded, it is not: a batch without
    # any spread would be whitened into advantages made of rounding alone.
    exact = _advantages(
        config.advantage,
        torch.from_numpy(total[kept]).double(),
        group=torch.from_numpy(group_index(rollouts)[kept]),
        lengths=torch.from_numpy(rollouts.response_tokens.lengths[kept]),
    )
    advantages = torch.zeros(len(rollouts))
    advantages[torch.from_numpy(kept)] = exact.float()
    return advantages


def _advantages(config: AdvantageConfig, rewards: Tensor, *, group: Tensor, lengths: Tensor) -> Tensor:
    match config:
        case GrpoAdvantage():
            return grpo_advantages(rewards, group=group, std_floor=config.std_floor, clip=config.clip)
        case DrGrpoAdvantage():
            return dr_grpo_advantages(rewards, group=group)
        case RankAdvantage():
            return rank_advantages(rewards, group=group)
        case ReinforcePpAdvantage():
            return reinforce_pp_advantages(rewards, group=group, std_floor=config.std_floor)
        case OpoAdvantage():
            return opo_advantages(rewards, group=group, lengths=lengths)
        case _:
            return rloo_advantages(rewards, group=group)


def group_index(rollouts: RolloutBatch) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """[R] index of each response's group, from 0 on."""
    bounds = rollouts.groups()
    sizes = [stop - start for start, stop in bounds]
    return np.repeat(np.arange(len(bounds), dtype=np.int64), sizes)


def reward_metrics(rollouts: RolloutBatch, rewards: Rewards, *, with_format: bool) -> Metrics:
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
    metrics["critic/rewards/mean"] = float(rewards.total[usable].mean())
    metrics["reward/discriminator_mean"] = float(rewards.discriminator[usable].mean())
    if with_format:
        metrics["format/reward_avg"] = float(rewards.format[usable].mean())
        metrics |= {f"format/{name}": float(values[usable].mean()) for name, values in rewards.terms.items()}
    return metrics


def _spread(rewards: Rewards, start: int, stop: int) -> float:
    """Largest minus smallest reward of a group; 0 where none of it has a reward."""
    group = rewards.total[start:stop]
    group = group[~np.isnan(group)]
    return float(np.ptp(group)) if len(group) else 0.0


def response_metrics(rollouts: RolloutBatch) -> Metrics:
    """Lengths of the policy's and the teacher's responses in the policy's tokens without end of turn, and how many were cut."""
    lengths = rollouts.text_lengths
    firsts = [start for start, _ in rollouts.groups()]
    cut = [reason is StopReason.LENGTH for reason in rollouts.stop_reasons]
    return {
        "response_length/mean": float(lengths.mean()),
        "response_length/max": float(lengths.max()),
        "response_length/clip_ratio": float(np.mean(cut)),
        "response_length/teacher_mean": float(rollouts.teacher_lengths[firsts].mean()),
        "rollout/failed": float(rollouts.num_failed),
        "rollout/retried": float(rollouts.num_retried),
    }
