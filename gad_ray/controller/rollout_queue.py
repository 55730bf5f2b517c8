"""Prompts on their way through the rollout: drawn, asked ahead, and asked again where a batch has empty places.

::

    drawer ─► prompts ─► rollout workers ─► responses ─┬──────────────────────────────────────► the step
                 ▲                                     └─► critic, rewards: which groups differ? ─┐
                 └───────────── new prompts in place of those that do not ◄───────────────────────┘
"""

from __future__ import annotations

import math
import time
from collections import ChainMap, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import JsonValue
from ray import ObjectRef

from gad_ray.actors.groups import ActorGroups
from gad_ray.actors.reward_group import FormatRefs
from gad_ray.actors.rollout_group import PendingRollouts, share
from gad_ray.actors.rollouts import Rollouts
from gad_ray.batch import Metrics, PromptBatch, PromptFigures, RolloutReceipt, SamplingSettings
from gad_ray.config import RunConfig
from gad_ray.controller.stages import Stages
from gad_ray.controller.timing import Stopwatch
from gad_ray.core.advantages import RefillConfig
from gad_ray.data.dataset import LoadedData
from gad_ray.data.prompt_sampler import PromptSampler
from gad_ray.rollout.work_buffer import Slot, SlotState, WorkBuffer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A step's prompts whose responses were asked for, and where the data stood before they were drawn."""

    step: int
    slots: tuple[Slot, ...]
    prompts: ObjectRef[PromptBatch]
    responses: PendingRollouts
    position_before: dict[str, JsonValue]
    epoch: float
    num_admitted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRollouts:
    """A step's prompts with their responses.

    Attributes:
        step: The step.
        prompts: Reference to the PromptBatch.
        rollouts: Reference to the responses.
        form: References to the format terms of these parts, or of some of them together, in their order.
        receipts: What the rollout workers told of each part.
        generation_s: Seconds in which the workers generated.
        metrics: How they were drawn.
        timing: How long that took.
    """

    step: int
    prompts: ObjectRef[PromptBatch]
    rollouts: Rollouts
    form: FormatRefs
    receipts: tuple[RolloutReceipt, ...]
    generation_s: float
    metrics: Metrics
    timing: Metrics


class RolloutQueue:
    """Draws every step's prompts and has them answered.

    Args:
        config: The run.
        data: Its prompts.
        groups: The actors.
        stages: Where the run stands; nothing is asked for beyond its end.
    """

    def __init__(self, config: RunConfig, *, data: LoadedData, groups: ActorGroups, stages: Stages) -> None:
        self._config = config
        self._data = data
        self._groups = groups
        self._stages = stages
        self._sampler = PromptSampler(
            [example.id for example in data.train],
            seed=config.data.seed,
            batch_size=config.prompts_per_step,
            curriculum=config.data.curriculum,
            difficulty=data.difficulty,
        )
        self._buffer = WorkBuffer(max_staleness=config.max_staleness)
        self._queue: deque[_Asked] = deque()

    def fill(self) -> None:
        """Ask for responses until ``max_staleness`` steps are under way besides the one to be trained."""
        while self._buffer.has_room and self._buffer.next_step <= self._stages.total_steps:
            step = self._buffer.next_step
            game_step = step - self._stages.warmup_steps
            position = self._sampler.position()
            rows = self._sampler.next_batch(game_step)
            slots = self._buffer.open(self._prompts_at(rows))
            prompts, responses = self._ask(slots)
            self._queue.append(
                _Asked(
                    step=step,
                    slots=tuple(slots),
                    prompts=prompts,
                    responses=responses,
                    position_before=position,
                    epoch=self._sampler.epoch,
                    num_admitted=self._sampler.num_admitted(game_step),
                )
            )

    def next_step(self, *, policy_version: int) -> StepRollouts:
        """Wait for the oldest step's responses; in the game, refill its batch if that is asked for.

        Args:
            policy_version: Version of the policy that is to be trained on them.

        Raises:
            TrainingError: If a sample is older than it may be.
        """
        sampled = self._sampled()
        groups = self._buffer.take(policy_version=policy_version)
        staleness = policy_version - min(
            (slot.policy_version or 0 for slot in groups), default=policy_version
        )
        num_tokens = sum(receipt.num_tokens for receipt in sampled.receipts)
        told = {
            "rollout/staleness": float(staleness),
            "rollout/tokens": float(num_tokens),
            "perf/rollout_tokens_per_s": num_tokens / sampled.generation_s,
        }
        return replace(sampled, metrics=sampled.metrics | told)

    def _sampled(self) -> StepRollouts:
        started = time.perf_counter()
        asked = self._queue.popleft()
        receipts = self._receipts(asked.slots, asked.responses)
        metrics = {"data/epoch": asked.epoch}
        if self._config.data.curriculum is not None:
            metrics["data/admitted_prompts"] = float(asked.num_admitted)
        rollouts = self._groups.rewards.gather(asked.responses.rollouts)
        sampled = StepRollouts(
            step=asked.step,
            prompts=asked.prompts,
            rollouts=rollouts,
            form=(self._groups.rewards.format(asked.prompts, rollouts),),
            receipts=receipts,
            generation_s=max(r.seconds for r in receipts),
            metrics=metrics,
            timing={"timing_s/rollout": _generation_s(started, receipts)},
        )
        refill = self._config.policy.advantage.refill
        if refill is None or asked.step <= self._stages.warmup_steps:
            return sampled
        return self._refilled(sampled, asked.slots, refill)

    def observe(self, figures: PromptFigures) -> None:
        """Let the curriculum learn from what a step has shown."""
        self._sampler.observe(figures)

    def state(self) -> dict[str, JsonValue]:
        """Where the data stand: what was asked for but not trained yet will be asked for again."""
        return self._sampler.state(self._queue[0].position_before if self._queue else None)

    def load_state(self, state: dict[str, JsonValue], *, step: int) -> None:
        """Go on after ``step``, where :meth:`state` was taken.

        Raises:
            CheckpointError: If it was taken with other data, or is damaged.
        """
        self._sampler.load_state(state)
        self._buffer.begin_after(step)

    def _refilled(self, sampled: StepRollouts, slots: tuple[Slot, ...], refill: RefillConfig) -> StepRollouts:
        """The step with new prompts in place of those whose responses are all alike to critic and format rewards.

        Those stay in the step: the critic learns from them, and the policy's update leaves them out by itself.
        """
        step, wanted = sampled.step, self._config.prompts_per_step
        parts, drawn, rounds, watch = [sampled], slots, 0, Stopwatch()
        found = self._num_with_spread(sampled, watch)
        while found < wanted and rounds < refill.max_rounds:
            count = math.ceil((wanted - found) * refill.oversample)
            held = [slot.row for slot in drawn]
            rows = self._sampler.more(count, held=held, game_step=step - self._stages.warmup_steps)
            if not rows:
                break
            more = tuple(self._buffer.open(self._prompts_at(rows), step=step))
            started = time.perf_counter()
            prompts, responses = self._ask(more)
            told = self._receipts(more, responses)
            watch.add({"timing_s/rollout": _generation_s(started, told)})
            rollouts = self._groups.rewards.gather(responses.rollouts)
            form = (self._groups.rewards.format(prompts, rollouts),)
            parts.append(replace(sampled, prompts=prompts, rollouts=rollouts, form=form, receipts=told))
            found += self._num_with_spread(parts[-1], watch)
            drawn += more
            rounds += 1
        metrics = {
            "rollout/refill_rounds": float(rounds),
            "rollout/refilled_groups": float(len(drawn) - len(slots)),
            "rollout/unfilled_groups": float(max(0, wanted - found)),
            "data/epoch": self._sampler.epoch,
        }
        watch.add(sampled.timing)
        return StepRollouts(
            step=step,
            prompts=share(self._batch(drawn)) if rounds else sampled.prompts,
            rollouts=self._groups.rewards.gather(
                Rollouts(tuple(part for one in parts for part in one.rollouts.parts))
            ),
            form=tuple(form for one in parts for form in one.form),
            receipts=tuple(receipt for one in parts for receipt in one.receipts),
            generation_s=sum(max(r.seconds for r in one.receipts) for one in parts),
            metrics=sampled.metrics | metrics,
            timing=watch.parts,
        )

    def _num_with_spread(self, part: StepRollouts, watch: Stopwatch) -> int:
        """Groups of these prompts that the policy can learn from, by a scoring pass of the critic as it is."""
        with watch("score"):
            what = f"the scores of step {part.step}, for the spread of its groups"
            scores = self._groups.critic.score(part.prompts, part.rollouts, what=what)
            (form,) = part.form
            return self._groups.rewards.spread(part.rollouts, scores, form, step=part.step).num_with_spread

    def _prompts_at(self, rows: Sequence[int]) -> list[tuple[int, str]]:
        return [(row, self._data.train[row].id) for row in rows]

    def _ask(self, slots: Sequence[Slot]) -> tuple[ObjectRef[PromptBatch], PendingRollouts]:
        prompts = self._batch(slots)
        for slot in slots:
            slot.move(SlotState.ASKED)
        return share(prompts), self._groups.rollout.generate(prompts, self._sampling())

    def _batch(self, slots: Sequence[Slot]) -> PromptBatch:
        return PromptBatch(step=slots[0].step, examples=tuple(self._data.train[slot.row] for slot in slots))

    def _receipts(self, slots: Sequence[Slot], responses: PendingRollouts) -> tuple[RolloutReceipt, ...]:
        """Wait for the responses of groups, and note what came of each."""
        what = f"the responses of step {slots[0].step}"
        receipts = tuple(self._groups.rollout.receipts(responses, what=what))
        self._buffer.answered(slots, dict(ChainMap(*(dict(receipt.versions) for receipt in receipts))))
        return receipts

    def _sampling(self) -> SamplingSettings:
        rollout = self._config.rollout
        return SamplingSettings.of(
            rollout, num_responses=rollout.responses_per_prompt, seed=self._config.seed
        )


def _generation_s(started: float, receipts: Sequence[RolloutReceipt]) -> float:
    """Seconds of a wait for responses in which a worker generated; the rest of it they were on their way."""
    return min(time.perf_counter() - started, max(receipt.seconds for receipt in receipts))
