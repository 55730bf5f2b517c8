"""Prompts on their way through the rollout: drawn, asked ahead, and asked again where a batch has empty places.

::

    drawer ─► prompts ─► rollout workers ─► responses ─┬─────────────────────────────► the step
                 ▲                                     └─► critic: which groups differ? ─┐
                 └───────────── new prompts in place of those that do not ◄──────────────┘
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from gad_ray.actors.groups import Groups, RolloutRefs
from gad_ray.batch import Metrics, PromptBatch, PromptFigures, RolloutReceipt, SamplingSettings
from gad_ray.config import RunConfig
from gad_ray.config.policy import RefillConfig
from gad_ray.data.dataset import LoadedData
from gad_ray.data.drawing import PromptDrawer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """Prompts whose responses were asked for, and where the data stood before they were drawn."""

    step: int
    rows: tuple[int, ...]
    prompts: Any
    responses: RolloutRefs
    position_before: dict[str, JsonValue]
    epoch: float
    num_admitted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A step's prompts with their responses.

    Attributes:
        step: The step.
        prompts: Reference to the PromptBatch.
        batches: References to the parts of the responses.
        receipts: What the rollout workers told of each part.
        generation_s: Seconds in which the workers generated.
        metrics: How they were drawn, and how long that took.
    """

    step: int
    prompts: Any
    batches: tuple[Any, ...]
    receipts: tuple[RolloutReceipt, ...]
    generation_s: float
    metrics: Metrics


class Asking:
    """Draws every step's prompts and has them answered.

    Args:
        config: The run.
        data: Its prompts.
        groups: The actors.
        warmup_steps: Steps of the warm-up.
        total_steps: Steps of the run; nothing is asked for beyond.
    """

    def __init__(
        self, config: RunConfig, *, data: LoadedData, groups: Groups, warmup_steps: int, total_steps: int
    ) -> None:
        self._config = config
        self._data = data
        self._groups = groups
        self._warmup_steps = warmup_steps
        self._total_steps = total_steps
        self._drawer = PromptDrawer(
            [example.id for example in data.train],
            seed=config.data.seed,
            batch_size=config.prompts_per_step,
            curriculum=config.data.curriculum,
            difficulty=data.difficulty,
        )
        self._queue: deque[_Asked] = deque()
        self._last_asked = 0

    def take_lengths(self, *, warmup_steps: int, total_steps: int) -> None:
        """Go by other lengths of the stages from now on."""
        self._warmup_steps, self._total_steps = warmup_steps, total_steps

    def ahead(self) -> None:
        """Ask for responses until ``max_staleness`` steps are under way besides the one to be trained."""
        while len(self._queue) <= self._config.max_staleness and self._last_asked < self._total_steps:
            self._last_asked += 1
            step = self._last_asked
            position = self._drawer.position()
            rows = self._drawer.next_batch(step - self._warmup_steps)
            prompts, responses = self._ask(step, rows)
            self._queue.append(
                _Asked(
                    step=step,
                    rows=rows,
                    prompts=prompts,
                    responses=responses,
                    position_before=position,
                    epoch=self._drawer.epoch,
                    num_admitted=self._drawer.num_admitted(step - self._warmup_steps),
                )
            )

    def next_step(self) -> Answered:
        """Wait for the oldest step's responses; in the game, refill its batch if that is asked for."""
        started = time.perf_counter()
        asked = self._queue.popleft()
        receipts = self._receipts(asked.step, asked.responses)
        metrics = {
            "timing_s/rollout": time.perf_counter() - started,
            "data/epoch": asked.epoch,
        }
        if self._config.data.curriculum is not None:
            metrics["data/admitted_prompts"] = float(asked.num_admitted)
        answered = Answered(
            step=asked.step,
            prompts=asked.prompts,
            batches=asked.responses.batches,
            receipts=receipts,
            generation_s=max(r.seconds for r in receipts),
            metrics=metrics,
        )
        refill = self._config.policy.advantage.refill
        if refill is None or asked.step <= self._warmup_steps:
            return answered
        return self._refilled(answered, asked.rows, refill)

    def observe(self, figures: PromptFigures) -> None:
        """Let the curriculum learn from what a step has shown."""
        self._drawer.observe(figures)

    def state(self) -> dict[str, JsonValue]:
        """Where the data stand: what was asked for but not trained yet will be asked for again."""
        return self._drawer.state(self._queue[0].position_before if self._queue else None)

    def load_state(self, state: dict[str, JsonValue], *, step: int) -> None:
        """Go on after ``step``, where :meth:`state` was taken.

        Raises:
            CheckpointError: If it was taken with other data, or is damaged.
        """
        self._drawer.load_state(state)
        self._last_asked = step

    def _refilled(self, answered: Answered, rows: tuple[int, ...], refill: RefillConfig) -> Answered:
        """The step with new prompts in place of those whose responses are all alike to critic and format rewards.

        Those stay in the step: the critic learns from them, and the policy's update leaves them out by itself.
        """
        step, wanted = answered.step, self._config.prompts_per_step
        batches, receipts = list(answered.batches), list(answered.receipts)
        generation_s = answered.generation_s
        metrics = dict(answered.metrics)
        metrics["timing_s/score"] = 0.0
        prompts, parts, rounds, drawn = answered.prompts, answered.batches, 0, rows
        found = self._num_with_spread(step, prompts, parts, metrics)
        while found < wanted and rounds < refill.max_rounds:
            count = math.ceil((wanted - found) * refill.oversample)
            more = self._drawer.more(count, held=drawn, game_step=step - self._warmup_steps)
            if not more:
                break
            started = time.perf_counter()
            prompts, responses = self._ask(step, more)
            told = self._receipts(step, responses)
            metrics["timing_s/rollout"] += time.perf_counter() - started
            receipts += told
            generation_s += max(r.seconds for r in told)
            parts = responses.batches
            found += self._num_with_spread(step, prompts, parts, metrics)
            batches += parts
            drawn += more
            rounds += 1
        metrics["rollout/refill_rounds"] = float(rounds)
        metrics["rollout/refilled_groups"] = float(len(drawn) - len(rows))
        metrics["rollout/unfilled_groups"] = float(max(0, wanted - found))
        metrics["data/epoch"] = self._drawer.epoch
        return Answered(
            step=step,
            prompts=self._groups.share(self._batch(step, drawn)) if rounds else answered.prompts,
            batches=tuple(batches),
            receipts=tuple(receipts),
            generation_s=generation_s,
            metrics=metrics,
        )

    def _num_with_spread(self, step: int, prompts: Any, parts: Sequence[Any], metrics: Metrics) -> int:
        """Groups of these prompts that the policy can learn from, by a scoring pass of the critic as it is."""
        started = time.perf_counter()
        looks = [actor.look_at.remote(prompts, *parts) for actor in self._groups.critic]
        figures: PromptFigures = self._groups.waiter.get(
            looks, what=f"the spread of step {step}'s groups", deadline_s=self._config.limits.score_s
        )[0]
        metrics["timing_s/score"] += time.perf_counter() - started
        return figures.num_with_spread

    def _ask(self, step: int, rows: Sequence[int]) -> tuple[Any, RolloutRefs]:
        prompts = self._batch(step, rows)
        return self._groups.share(prompts), self._groups.generate(prompts, self._sampling())

    def _batch(self, step: int, rows: Sequence[int]) -> PromptBatch:
        return PromptBatch(step=step, examples=tuple(self._data.train[row] for row in rows))

    def _receipts(self, step: int, responses: RolloutRefs) -> tuple[RolloutReceipt, ...]:
        return tuple(self._groups.receipts(responses, what=f"the responses of step {step}"))

    def _sampling(self) -> SamplingSettings:
        rollout = self._config.rollout
        return SamplingSettings.of(
            rollout, num_responses=rollout.responses_per_prompt, seed=self._config.seed
        )
