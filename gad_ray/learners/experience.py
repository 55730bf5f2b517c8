"""From scores to rewards and advantages, over the whole batch of a step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gad_ray.batch import Float32, Metrics, RolloutBatch, ScoreBatch, StopReason
from gad_ray.config.policy import PolicyConfig, RewardConfig
from gad_ray.core.advantages import grpo_advantages
from gad_ray.core.rewards import no_repetition

_NO_SPREAD = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewards:
    """[R] float32 each: the total, and the weighted terms that add up to it."""

    total: Float32
    discriminator: Float32
    format: Float32


def rewards_of(rollouts: RolloutBatch, scores: ScoreBatch, config: RewardConfig) -> Rewards:
    """r = w_D · D(x, y) + Σ w_i · f_i(y), in the order of the rollouts."""
    discriminator = np.float32(config.discriminator_weight) * scores.student
    shaping = np.zeros(len(rollouts), dtype=np.float32)
    for term in config.format:
        values = [no_repetition(text, ngram=term.ngram) for text in rollouts.texts]
        shaping += np.float32(term.weight) * np.asarray(values, dtype=np.float32)
    return Rewards(total=discriminator + shaping, discriminator=discriminator, format=shaping)


def advantages_of(rollouts: RolloutBatch, rewards: Rewards, config: PolicyConfig) -> Tensor:
    """[R] float32 advantages within each prompt's group."""
    return grpo_advantages(
        torch.from_numpy(rewards.total),
        group=torch.from_numpy(group_index(rollouts)),
        std_floor=config.advantage.std_floor,
        clip=config.advantage.clip,
    )


def group_index(rollouts: RolloutBatch) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """[R] index of each response's group, from 0 on."""
    bounds = rollouts.groups()
    sizes = [stop - start for start, stop in bounds]
    return np.repeat(np.arange(len(bounds), dtype=np.int64), sizes)


def reward_metrics(rollouts: RolloutBatch, rewards: Rewards, *, with_format: bool) -> Metrics:
    """Means of the reward and of its terms, and the share of groups whose rewards do not differ."""
    spread = [float(np.ptp(rewards.total[start:stop])) for start, stop in rollouts.groups()]
    metrics: Metrics = {
        "critic/rewards/mean": float(rewards.total.mean()),
        "reward/discriminator_mean": float(rewards.discriminator.mean()),
        "actor/zero_spread_groups": float(np.mean(np.asarray(spread) < _NO_SPREAD)),
    }
    if with_format:
        metrics["format/reward_avg"] = float(rewards.format.mean())
    return metrics


def response_metrics(rollouts: RolloutBatch) -> Metrics:
    """Lengths of the policy's and the teacher's responses in the policy's tokens, and how many were cut."""
    lengths = rollouts.response_tokens.lengths
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
