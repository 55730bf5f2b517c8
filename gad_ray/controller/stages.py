"""Where a run stands: its warm-up, its game, and the step between them."""

from __future__ import annotations

from gad_ray.config import RunConfig


class Stages:
    """The lengths of a run's stages, and the step that it has reached.

    Args:
        config: The run.
        num_prompts: Prompts that it trains on.

    Attributes:
        step: Steps that have been played.
        warmup_steps: Steps of the warm-up, fewer than were asked for where the critic was ready before.
        most_warmup_steps: Steps of the warm-up that were asked for.
        total_steps: Steps of the run.
        in_game: Whether the adversarial stage has begun.
    """

    def __init__(self, config: RunConfig, *, num_prompts: int) -> None:
        self._config = config
        sizes = {"num_prompts": num_prompts, "prompts_per_step": config.prompts_per_step}
        self.warmup_steps = self.most_warmup_steps = config.stages.warmup.in_steps(**sizes)
        self.total_steps = self.warmup_steps + config.stages.adversarial.in_steps(**sizes)
        self.step = 0
        self.in_game = False

    @property
    def name(self) -> str:
        """The stage's name."""
        return "adversarial" if self.in_game else "warmup"

    @property
    def stage_step(self) -> int:
        """Steps of the stage that it is in."""
        return self.step - (self.warmup_steps if self.in_game else 0)

    @property
    def adversarial_steps(self) -> int:
        """Steps of the game."""
        return self.total_steps - self.warmup_steps

    @property
    def in_warmup(self) -> bool:
        """Whether a step of the warm-up is left."""
        return self.step < self.warmup_steps

    @property
    def at_border(self) -> bool:
        """Whether the game is to begin."""
        return self.step == self.warmup_steps and not self.in_game

    @property
    def at_end(self) -> bool:
        """Whether every step has been played."""
        return self.step >= self.total_steps

    @property
    def told(self) -> str:
        """What is said when a stage begins or goes on."""
        end = self.total_steps if self.in_game else self.warmup_steps
        return f"stage {self.name}: steps {self.step + 1} to {end}"

    @property
    def fit_steps(self) -> int:
        """Steps of the warm-up in which the policy is fitted."""
        return sum(self._is_fitted(step) for step in range(1, self.warmup_steps + 1))

    @property
    def policy_updates(self) -> int:
        """Optimiser steps of the policy in the game."""
        per_step = self._config.prompts_per_step // self._config.mini_batch_prompts
        return self.adversarial_steps * per_step * self._config.policy.epochs_per_step

    def policy_is_fitted(self, step: int) -> bool:
        """Whether the policy is fitted to the teacher's text in a step."""
        return not self.in_game and self._is_fitted(step)

    def end_warmup(self, steps: int) -> None:
        """Go by this length of the warm-up; the game keeps its own."""
        self.total_steps += steps - self.warmup_steps
        self.warmup_steps = steps

    def _is_fitted(self, step: int) -> bool:
        warmup = self._config.stages.warmup
        return warmup.policy == "cross_entropy" and step > warmup.critic_only_steps
