"""The configuration of a whole run."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from gad_ray.config.critic import CriticConfig
from gad_ray.config.data import DataConfig
from gad_ray.config.fit import FitConfig, FitMethod
from gad_ray.config.health import (
    ADAPTIVE_BOUNDS,
    KL_COEFFICIENT,
    TEMPERATURE,
    UPDATES_PER_STEP,
    Bounds,
    HealthConfig,
)
from gad_ray.config.length import StageLength
from gad_ray.config.policy import PolicyConfig
from gad_ray.config.reward import RewardConfig
from gad_ray.config.rollout import RolloutConfig
from gad_ray.config.serve import ServeConfig
from gad_ray.core.discriminator import FixedTemperature
from gad_ray.strict_model import StrictModel


class ReadyGate(StrictModel):
    """The warm-up ends when the critic is ready: the step after its figures have met the band for five steps.

    The band: d_acc 0.65 to 0.95, score_diff 1 to 5, gradient norm 0.3 to 5, and the loss not saturated.
    """

    min_steps: int = Field(default=10, ge=1)
    """Fewest steps of the warm-up."""

    otherwise: Literal["continue", "stop"] = "continue"
    """What happens if the critic is not ready after the warm-up's ``steps``: begin the game with a warning, or stop
    with the state saved."""


class WarmupStage(StageLength):
    """The critic learns to rank before its score is used as a reward."""

    until_ready: ReadyGate | None = None
    """End the warm-up as soon as the critic is ready; ``steps`` or ``epochs`` are then the most that it takes, and what
    learning-rate schedules reckon with. Absent: all of them."""

    policy: Literal["frozen", "cross_entropy"] = "frozen"
    """What the policy does meanwhile: stand still, or be fitted to the teacher's text (SeqKD warm start)."""

    critic_only_steps: int = Field(default=0, ge=0)
    """With ``cross_entropy``: steps at the start in which the policy is still frozen."""

    policy_lr: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Learning rate of the cross-entropy warm start; absent: the policy optimiser's."""


class AdversarialStage(StageLength):
    """The game: the policy follows the critic's score, and both keep learning."""


class StagesConfig(StrictModel):
    """The two stages of a run, and what may come before them."""

    warm_start: Literal["none", "seqkd", "soda"] = "none"
    """Fit the policy to fixed text first, by the settings under ``fit``, and start the stages from the result."""

    warmup: WarmupStage
    adversarial: AdversarialStage


class EvaluationConfig(StrictModel):
    """The fixed evaluation set: held-out prompts, answered once by the policy before training."""

    every: int = Field(default=20, ge=0)
    """Steps between evaluations; 0: only at the ends of the stages."""

    resample: bool = True
    """Also have the policy of the moment answer the held-out prompts, with the same settings and seed: then a
    critic that got worse and a policy that got better can be told apart."""

    greedy_prompts: int = Field(default=16, ge=0)
    """Held-out prompts that the policy also answers greedily before training and at its end: the share of answers
    that stayed the same (``eval/greedy_unchanged``) tells a policy that stands still from one that moved. 0: none."""

    sample_rows: int = Field(default=3, ge=0)
    """Rows shown at the end of the run."""

    seed: int = Field(default=1234, ge=0)
    """Seed of the responses drawn for evaluation."""


class CheckpointConfig(StrictModel):
    """When the whole state is saved, and how much of it is kept."""

    every: int = Field(default=100, ge=0)
    """Steps between checkpoints; 0: only at the stage boundary and when the run is stopped."""

    keep: int = Field(default=2, ge=1)
    """Checkpoints kept, newest first."""

    at_end: bool = True
    """Also save when the run has finished, so that it can be prolonged."""


class LimitsConfig(StrictModel):
    """Deadlines in seconds, and how much may go wrong."""

    start_s: float = Field(default=900.0, gt=0.0)
    """Placement of the actors and loading of their models."""

    rollout_s: float = Field(default=1800.0, gt=0.0)
    score_s: float = Field(default=900.0, gt=0.0)
    update_s: float = Field(default=1800.0, gt=0.0)
    sync_s: float = Field(default=300.0, gt=0.0)
    checkpoint_s: float = Field(default=1800.0, gt=0.0)

    max_nonfinite_steps: int = Field(default=3, ge=0)
    """Optimiser steps in a row skipped for a non-finite loss or gradient, above which the run stops."""

    sync_tolerance: float | None = Field(default=None, gt=0.0)
    """Largest accepted gap (nats) between the learner's and the engine's log-probabilities of the probe.
    Absent: 1e-3 for every token with a float32 engine, 0.15 for their mean with a bfloat16 one."""


class RecordsConfig(StrictModel):
    """Score records: what was compared and what it scored."""

    every: int = Field(default=1, ge=0)
    """Steps between records; 0 turns them off."""

    max_rows_per_step: int = Field(default=64, ge=1)
    """Rows kept of one step, in the order of the batch."""

    token_values: int = Field(default=2, ge=0)
    """Responses of a recorded step for which the critic's value of every single token is kept as well, and of the
    teacher's text to the same prompt. They come out of the pass that scores: none is made for them."""


class ReportConfig(StrictModel):
    """The run's report, ``report.html`` in its directory."""

    refresh_s: float = Field(default=60.0, ge=0.0)
    """Seconds between refreshes while the run goes, and more where writing takes long: at most a fiftieth of the
    time is spent on it. 0: the report is written at the end only."""


class RunConfig(StrictModel):
    """Everything that defines a run. Saved, resolved, in the run's directory."""

    name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The run's directory under ``output_dir``."""

    output_dir: str = "runs"
    """Where run directories are made."""

    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of initialisation and sampling; the data have their own."""

    prompts_per_step: int = Field(ge=1)
    """Prompts in every step. Responses per step follow: × ``rollout.responses_per_prompt``."""

    max_staleness: int = Field(default=0, ge=0, le=16)
    """Most policy updates by which a sample may be older than the policy it trains. Older samples take the engine's
    log-probabilities from when they were drawn for π_old; with ``policy.importance`` they are weighed by these instead."""

    overlap: bool = False
    """Let critic and policy update at the same time (room for both needed); else they take turns."""

    data: DataConfig
    policy: PolicyConfig
    critic: CriticConfig
    rollout: RolloutConfig
    stages: StagesConfig
    fit: FitConfig = FitConfig()
    reward: RewardConfig = RewardConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    limits: LimitsConfig = LimitsConfig()
    records: RecordsConfig = RecordsConfig()
    health: HealthConfig = HealthConfig()
    report: ReportConfig = ReportConfig()
    serve: ServeConfig = ServeConfig()

    @property
    def mini_batch_prompts(self) -> int:
        """Prompts per optimiser step of the policy."""
        return self.policy.mini_batch_prompts or self.prompts_per_step

    def prompts_per_fit_step(self, method: FitMethod) -> int:
        """Prompts per optimiser step of an offline fit."""
        return self.fit.of(method).prompts_per_step or self.prompts_per_step

    @property
    def adjustable(self) -> dict[str, Bounds]:
        """Dotted key → bounds of the settings that health rules may change in this run; empty unless they may."""
        adaptive = self.health.adaptive
        if adaptive is None:
            return {}
        kl = self.policy.kl
        can_be = {
            TEMPERATURE: isinstance(self.critic.loss.temperature, FixedTemperature),
            UPDATES_PER_STEP: True,
            # Without a coefficient no reference was kept; one that adapts itself is moved already.
            KL_COEFFICIENT: kl.coefficient > 0.0 and kl.adaptive is None,
        }
        bounds: dict[str, Bounds | None] = {
            key: getattr(adaptive, name) for key, name in ADAPTIVE_BOUNDS.items() if can_be[key]
        }
        return {key: found for key, found in bounds.items() if found is not None}

    def value_at(self, key: str) -> Any:
        """The setting of a dotted key, as ``critic.updates_per_step``."""
        value: Any = self
        for name in key.split("."):
            value = getattr(value, name)
        return value

    @model_validator(mode="after")
    def _sizes_fit_together(self) -> Self:
        if self.prompts_per_step % self.mini_batch_prompts:
            raise ValueError(
                f"policy.mini_batch_prompts = {self.mini_batch_prompts} does not divide "
                f"prompts_per_step = {self.prompts_per_step}"
            )
        for role, group in (("policy", self.policy.group), ("critic", self.critic.group)):
            if group.num_ranks > self.prompts_per_step:
                raise ValueError(
                    f"{role}.group.num_ranks = {group.num_ranks} exceeds prompts_per_step = "
                    f"{self.prompts_per_step}: a rank would have nothing to do"
                )
        if self.policy.group.num_ranks > self.mini_batch_prompts:
            raise ValueError(
                f"policy.group.num_ranks = {self.policy.group.num_ranks} exceeds policy.mini_batch_prompts = "
                f"{self.mini_batch_prompts}: a rank would have nothing to do"
            )
        for method, fit in (("seqkd", self.fit.seqkd), ("soda", self.fit.soda)):
            if self.policy.group.num_ranks > (fit.prompts_per_step or self.prompts_per_step):
                raise ValueError(
                    f"policy.group.num_ranks = {self.policy.group.num_ranks} exceeds fit.{method}.prompts_per_step = "
                    f"{fit.prompts_per_step}: a rank would have nothing to do"
                )
        if self.rollout.num_workers > self.prompts_per_step:
            raise ValueError(
                f"rollout.num_workers = {self.rollout.num_workers} exceeds prompts_per_step = "
                f"{self.prompts_per_step}: a worker would have nothing to do"
            )
        return self

    @model_validator(mode="after")
    def _answers_start_within_their_bounds(self) -> Self:
        for key, bounds in self.adjustable.items():
            value = self.value_at(key)
            if not bounds.lo <= value <= bounds.hi:
                raise ValueError(
                    f"{key} = {value:g} lies outside {bounds.lo:g} to {bounds.hi:g}, within which health.adaptive may "
                    f"move it: widen health.adaptive.{ADAPTIVE_BOUNDS[key]}, or set that to null"
                )
        return self

    @model_validator(mode="after")
    def _what_is_served_learns(self) -> Self:
        if self.serve.enabled and not self.trains_critic:
            raise ValueError(
                "serve.enabled goes without critic.frozen: the critic does not change with the run; serve it by itself, with "
                "gad-ray serve"
            )
        return self

    @property
    def trains_critic(self) -> bool:
        """Whether the critic learns: not where ``critic.frozen`` names one that does not."""
        return self.critic.frozen is None

    @model_validator(mode="after")
    def _refills_are_fresh(self) -> Self:
        if self.policy.advantage.refill is not None and self.max_staleness > 0:
            raise ValueError(
                f"max_staleness = {self.max_staleness} goes without policy.advantage.refill: what is drawn within the "
                "step comes from a newer policy than the rest of it; set max_staleness to 0, or leave refill out"
            )
        return self

    @model_validator(mode="after")
    def _the_game_can_be_played(self) -> Self:
        adversarial = self.stages.adversarial
        plays = (adversarial.steps or 0) > 0 or (adversarial.epochs or 0.0) > 0
        if plays and self.rollout.responses_per_prompt < 2:
            raise ValueError(
                f"rollout.responses_per_prompt = {self.rollout.responses_per_prompt}: the advantage "
                f"'{self.policy.advantage.variant}' compares the responses of a group and needs at least 2"
            )
        if plays and self.rollout.temperature == 0.0:
            raise ValueError("rollout.temperature = 0: all responses of a group would be the same")
        if plays and self._shapes_sampling and not self.rollout.accept_biased_gradient:
            raise ValueError(
                f"{' and '.join(self._shapes_sampling)}: the game's responses would not come from the distribution whose "
                "gradient is taken, which biases it; leave top_p and repetition_penalty at 1, or set "
                "rollout.accept_biased_gradient to true"
            )
        uncorrected = not self.policy.loss.corrects_for_moves and self.policy.importance is None
        if plays and self.max_staleness > 0 and uncorrected:
            raise ValueError(
                f"max_staleness = {self.max_staleness} with policy.loss.name = {self.policy.loss.variant}: this loss has "
                "no ratio to the policy that drew the samples; set policy.importance.name to truncated, or use ppo, gspo or cispo"
            )
        return self

    @property
    def _shapes_sampling(self) -> list[str]:
        """Settings, with their values, that make the sampled distribution another than that at the temperature."""
        rollout = self.rollout
        return [
            f"rollout.{name} = {getattr(rollout, name):g}"
            for name in ("top_p", "repetition_penalty")
            if getattr(rollout, name) != 1.0
        ]

    @property
    def accepted(self) -> list[str]:
        """What these settings put up with, for the first lines of a run."""
        if not (self._shapes_sampling and self.rollout.accept_biased_gradient):
            return []
        return [
            f"{' and '.join(self._shapes_sampling)}: the policy gradient is biased, as rollout.accept_biased_gradient accepts"
        ]
