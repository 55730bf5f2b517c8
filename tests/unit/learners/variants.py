"""Every variant of the critic and of the policy at work on one small batch.

For tests that put the same batch in another order, into other micro-batches, or on several ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gad_ray.batch import PromptBatch, Ragged, RolloutBatch, ScoreBatch, StopReason
from gad_ray.config.critic import ReplayConfig
from gad_ray.config.fit import SodaFit
from gad_ray.config.models import OptimizerConfig
from gad_ray.config.policy import AdaptiveKl, KlConfig, RejectedImportance, TruncatedImportance
from gad_ray.config.reward import LengthWindow, NoRepetition, RewardConfig
from gad_ray.core.advantages import (
    DrGrpoAdvantage,
    GrpoAdvantage,
    OpoAdvantage,
    RankAdvantage,
    ReinforcePpAdvantage,
    RlooAdvantage,
)
from gad_ray.core.discriminator import (
    AdaptiveTemperature,
    BradleyTerryLoss,
    CrossEntropyLoss,
    FixedTemperature,
    ScoreReg,
)
from gad_ray.core.policy_loss import CispoLoss, GspoLoss, PpoLoss, ReinforceLoss
from gad_ray.core.pooling import BlendPooling, LastPooling, MeanPooling, MixPooling
from gad_ray.learners.collective import Collective
from gad_ray.learners.critic import CriticLearner
from gad_ray.learners.preference import preference_groups, preference_step, reference_logprobs
from gad_ray.models.chat import ChatFormat
from gad_ray.models.pairs import Pair
from tests.unit.builders import (
    PROMPTS,
    SMOOTH,
    STUDENT,
    TEACHER,
    GamePolicy,
    critic_config,
    critic_learner,
    drawn_by,
    figures_of,
    pair,
    policy_config,
    policy_learner,
    prompt_batch,
    recorded_gradients,
    rollout_batch,
    score_batch,
    weights_of,
)

# Three sizes of group; one response is the teacher's own text, two of a group are alike, one says nothing.
TEXTS = (STUDENT[0], (TEACHER[1], "a list"), ("340", "340", "51", "391"), (*STUDENT[3][:2], ""))
# The second group's are all alike: it has no spread.
SCORES = [1.0, 3.0, -1.0, 0.5, 0.5, 0.0, -2.0, 1.5, 1.0, 2.0, -0.5, 0.25]
NINE_SCORES = [1.0, 3.0, -1.0, 0.5, 0.0, -2.0, 1.5, 1.0, 2.0]
"""Of three groups of three responses."""
CUT = (1, 3, 4)
"""Responses that were cut at the limit: all of the second prompt's."""
SMALL = 150
"""Tokens of about three rows."""
WHOLE = 16384

REG = ScoreReg(threshold=0.05, weight=0.1)
FREE = AdaptiveTemperature(a=0.0, b=2.0, lo=0.001, hi=9.0)
HALF = FixedTemperature(value=0.5)
NORMALISED = BradleyTerryLoss(temperature=FREE, batch_norm=True, score_reg=REG)
POOLINGS = {
    "mean": MeanPooling(),
    "last": LastPooling(),
    "blend": BlendPooling(blend_start=0, blend_end=4),
    "mix": MixPooling(w_raw=0.4, w_norm=0.9),
}
CRITIC_LOSSES = {
    "fixed": BradleyTerryLoss(temperature=HALF, margin=0.2, score_reg=REG),
    "sharp": BradleyTerryLoss(temperature=AdaptiveTemperature(preset="sharp"), score_reg=REG),
    "free": BradleyTerryLoss(temperature=FREE, margin=-0.1, score_reg=REG),
    "batch norm": BradleyTerryLoss(temperature=HALF, batch_norm=True, score_reg=REG),
    "batch norm, free": NORMALISED,
    "cross-entropy": CrossEntropyLoss(temperature=HALF, score_reg=REG),
    "cross-entropy, free": CrossEntropyLoss(temperature=FREE, score_reg=REG),
}
REPLAY = ReplayConfig(size=100, ratio=0.5)

CRITICS: dict[str, dict[str, Any]] = {
    **{name: {"loss": loss} for name, loss in CRITIC_LOSSES.items()},
    **{f"pooling {name}": {"loss": CRITIC_LOSSES["fixed"], "pooling": p} for name, p in POOLINGS.items()},
    "padded": {"loss": CRITIC_LOSSES["fixed"], "packing": False},
    "excluded": {"loss": CRITIC_LOSSES["fixed"], "truncated": "exclude"},
    "replay": {"loss": CRITIC_LOSSES["fixed"], "replay": REPLAY},
    "several updates": {"loss": CRITIC_LOSSES["free"], "updates_per_step": 2},
    "all at once": {
        "loss": NORMALISED,
        "pooling": POOLINGS["blend"],
        "truncated": "exclude",
        "replay": REPLAY,
    },
}

POLICY_LOSSES: dict[str, Any] = {
    f"{loss.__name__.removesuffix('Loss').lower()} {how}": loss(
        aggregation=how, length_divisor=9 if how == "constant" else None
    )
    for loss in (PpoLoss, CispoLoss, ReinforceLoss)
    for how in ("token_mean", "sequence_mean", "constant")
} | {"gspo": GspoLoss(clip_low=0.3, clip_high=0.3)}
ADVANTAGES = (
    GrpoAdvantage(),
    DrGrpoAdvantage(),
    RlooAdvantage(),
    RankAdvantage(),
    ReinforcePpAdvantage(),
    OpoAdvantage(),
)
_ADAPTIVE = AdaptiveKl(target=0.01, horizon=6)

POLICIES: dict[str, dict[str, Any]] = {
    **{name: {"loss": loss} for name, loss in POLICY_LOSSES.items()},
    **{one.name: {"advantage": one} for one in ADVANTAGES},
    "dropped groups": {"advantage": GrpoAdvantage(zero_spread="drop")},
    **{
        f"{estimator} in {place}": {"kl": KlConfig(estimator=estimator, place=place, coefficient=0.1)}
        for estimator in ("k1", "k2", "k3")
        for place in ("loss", "reward")
    },
    "adaptive kl": {"kl": KlConfig(estimator="k2", coefficient=0.1, adaptive=_ADAPTIVE)},
    "adaptive kl in reward": {"kl": KlConfig(place="reward", coefficient=0.1, adaptive=_ADAPTIVE)},
    "renewed reference": {"kl": KlConfig(coefficient=0.1, refresh_every=1)},
    "entropy": {"entropy_coefficient": 0.1},
    "truncated importance": {"importance": TruncatedImportance(cap=1.2)},
    "rejected tokens": {"importance": RejectedImportance(cap=1.2)},
    "rejected sequences": {"importance": RejectedImportance(cap=1.2, unit="sequence")},
    "gspo, rejected sequences": {
        "loss": POLICY_LOSSES["gspo"],
        "importance": RejectedImportance(cap=1.2, unit="sequence"),
    },
    "format rewards": {
        "reward": RewardConfig(format=(LengthWindow(max_tokens=6, soft_tokens=4), NoRepetition(ngram=1)))
    },
}


@dataclass(frozen=True)
class Batch:
    """What both learners are given in a step."""

    prompts: PromptBatch
    rollouts: RolloutBatch
    scores: ScoreBatch

    def reordered(self, rows: Sequence[int]) -> Batch:
        """The same responses in another order; those of one prompt stay adjacent."""
        examples = tuple(reversed(self.prompts.examples))
        return Batch(
            PromptBatch(step=self.prompts.step, examples=examples),
            self.rollouts.take(rows),
            score_batch(self.scores.student[list(rows)].tolist()),
        )


def batch_of(chat: ChatFormat, *, step: int = 1, num_prompts: int = len(TEXTS)) -> Batch:
    """Four groups of 3, 2, 4 and 3 responses; the texts of every step after the first are its own."""
    prompts = prompt_batch(num_prompts, step=step)
    texts = [[f"{text}{'' if step == 1 else f' {step}'}" for text in group] for group in TEXTS[:num_prompts]]
    rollouts = rollout_batch(chat, prompts, texts=texts)
    rollouts = replace(
        rollouts,
        # Near what the tiny model gives its tokens, so that importance weights lie on both sides of their caps.
        logprobs=Ragged.from_rows([[-5.5] * len(row) for row in rollouts.response_tokens], np.float32),
        stop_reasons=tuple(StopReason.LENGTH if i in CUT else StopReason.STOP for i in range(len(rollouts))),
    )
    return Batch(prompts, rollouts, score_batch(SCORES[: len(rollouts)]))


@dataclass(frozen=True)
class Played:
    """What came of some updates.

    Attributes:
        gradients: Of every optimiser step, added up over the ranks.
        weights: At the end.
        figures: Metrics of the last update.
        scores: Of the critic's last batch, in the order of its responses; the students', then the teachers'.
    """

    gradients: list[dict[str, Tensor]]
    weights: dict[str, Tensor]
    figures: dict[str, float]
    scores: list[float]


def spread_critic(directory: Path, collective: Collective | None = None, **changed: Any) -> CriticLearner:
    """A critic whose scores differ: a fresh head's are so close to 0 that a loss has neither curve nor penalty."""
    learner = critic_learner(critic_config(directory, **changed), collective=collective)
    with torch.no_grad():
        learner.model.head.weight.mul_(30.0)
    return learner


def game_policy(
    directory: Path,
    collective: Collective | None = None,
    *,
    mini_batch_prompts: int = len(TEXTS),
    reward: RewardConfig | None = None,
    max_prompts: int | None = None,
    **changed: Any,
) -> GamePolicy:
    """A policy at the beginning of the adversarial stage, without a KL penalty unless one is given."""
    fields = {"kl": KlConfig(coefficient=0.0), "optimizer": OptimizerConfig(lr=3e-4, **SMOOTH), **changed}
    learner = policy_learner(
        policy_config(directory, **fields),
        mini_batch_prompts=mini_batch_prompts,
        collective=collective,
        reward=reward,
        max_prompts=max_prompts,
    )
    learner.begin_adversarial()
    return learner


def play_critic(
    directory: Path,
    collective: Collective | None = None,
    *,
    variant: dict[str, Any],
    budget: int = SMALL,
    order: Sequence[int] | None = None,
    num_prompts: int = len(TEXTS),
) -> Played:
    """Two steps of a critic, the second one's texts other than the first one's."""
    learner = spread_critic(directory, collective, micro_batch_tokens=budget, **variant)
    with recorded_gradients(learner) as gradients:
        for step in (1, 2):
            batch = batch_of(learner.model.encoder.chat, step=step, num_prompts=num_prompts)
            given = batch if order is None else batch.reordered(order)
            scores, stats = learner.score_and_update(given.prompts, given.rollouts)
    flat = [*scores.student.tolist(), *scores.teacher.tolist()]
    return Played(gradients, weights_of(learner), figures_of(stats.metrics), flat)


def play_policy(
    directory: Path,
    collective: Collective | None = None,
    *,
    variant: dict[str, Any],
    budget: int = SMALL,
    order: Sequence[int] | None = None,
    mini_batch_prompts: int = 3,
) -> Played:
    """Two steps of a policy, two epochs each: ratios, and divergences from the reference, are not trivial."""
    learner = game_policy(
        directory,
        collective,
        mini_batch_prompts=mini_batch_prompts,
        epochs_per_step=2,
        micro_batch_tokens=budget,
        **variant,
    )
    batch = batch_of(learner.model.chat)
    given = batch if order is None else batch.reordered(order)
    with recorded_gradients(learner) as gradients:
        for _ in range(2):
            stats = learner.play(drawn_by(learner, given.rollouts), given.scores, given.prompts)
    return Played(gradients, weights_of(learner), figures_of(stats.metrics), [])


def play_fit(directory: Path, collective: Collective | None = None, *, budget: int = SMALL) -> Played:
    """Two steps of cross-entropy on the teacher's text."""
    learner = policy_learner(policy_config(directory, micro_batch_tokens=budget), collective=collective)
    with recorded_gradients(learner) as gradients:
        for _ in range(2):
            stats = learner.fit(prompt_batch())
    return Played(gradients, weights_of(learner), figures_of(stats.metrics), [])


def play_preference(directory: Path, collective: Collective | None = None, *, budget: int = SMALL) -> Played:
    """Two steps of DPO on the teacher's text against the policy's own."""
    learner = policy_learner(policy_config(directory, micro_batch_tokens=budget), collective=collective)
    # A response that is the teacher's own text has a margin of 0, whose sign would be rounding's: no step 1, no such text.
    batch = batch_of(learner.model.chat, step=2)
    groups = preference_groups(learner.model.chat, batch.prompts.examples, batch.rollouts)
    references = list(reference_logprobs(learner, groups).values())
    with recorded_gradients(learner) as gradients:
        for _ in range(2):
            stats = preference_step(learner, list(groups.values()), references, SodaFit(nll_weight=0.1))
    flat = np.concatenate([part.values for part in references]).tolist()
    return Played(gradients, weights_of(learner), figures_of(stats.metrics), flat)


Case = Callable[[Path, Collective], Played]
CASES: dict[str, Case] = {
    **{f"critic: {name}": partial(play_critic, variant=v) for name, v in CRITICS.items()},
    # With one prompt, the second rank has nothing to do, and must still take part.
    "critic: one prompt": partial(play_critic, variant=CRITICS["all at once"], num_prompts=1),
    **{f"policy: {name}": partial(play_policy, variant=v) for name, v in POLICIES.items()},
    "policy: cross-entropy": play_fit,
    "policy: preference": play_preference,
}
"""What every process of a spawned group plays, one after the other."""


def all_pairs() -> list[Pair]:
    """Every prompt with the teacher's answer and with each of the policy's."""
    return [
        pair(prompt, text)
        for prompt, teacher, group in zip(PROMPTS, TEACHER, TEXTS, strict=True)
        for text in (teacher, *group)
    ]
