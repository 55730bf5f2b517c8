"""The driver of a run: it moves references, never a tensor.

::

    data ─► PromptBatch ─► RolloutGroup ─► RolloutBatch ─► CriticGroup ─► ScoreBatch ─┐
                             ▲                                                        ▼
         weights (versioned) │              format terms, user's functions ─► RewardGroup ─► TrainBatch ─► PolicyGroup
                             └────────────────────────────────────────────────────────────────────────────────┘

Each step takes ``prompts_per_step`` prompts, and more where groups without spread are refilled. In the warm-up the policy
stands still or is fitted to the teacher's text while the critic learns to rank; then both play. Responses are asked for up
to ``max_staleness`` steps ahead; with 0, the default, every sample comes from the policy that it trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from ray import ObjectRef

from gad_ray.activity import activity
from gad_ray.actors.groups import ActorGroups
from gad_ray.actors.policy_group import PendingUpdate
from gad_ray.actors.reward_group import PendingRewards
from gad_ray.batch import Metrics, ScoreBatch, TrainStats, merge_metrics
from gad_ray.config import RunConfig
from gad_ray.controller.adaptive_settings import AdaptiveSettings
from gad_ray.controller.checkpointing import Checkpointing, read_position
from gad_ray.controller.critic_publisher import CriticPublisher
from gad_ray.controller.heldout import WARMUP_CRITIC, HeldOut
from gad_ray.controller.on_critical import on_critical
from gad_ray.controller.progress import Progress
from gad_ray.controller.rollout_queue import RolloutQueue, StepRollouts
from gad_ray.controller.stages import Stages
from gad_ray.controller.timing import Stopwatch
from gad_ray.data.dataset import LoadedData
from gad_ray.errors import HealthError
from gad_ray.health import RunFinding
from gad_ray.interrupt import StopRequest
from gad_ray.observability.run_dir import RunDirectory

# Large enough that one stale kind of tensor shows above the rounding of bfloat16: on SmolLM2-135M the mean gap is
# 0.05-0.07 nats when all are taken, and 0.21 or more when one is not. At 0.02 some would pass unseen.
_SELF_TEST_PERTURBATION = 0.1
END_OF_WARMUP = "end_of_warmup"


class Controller:
    """The stages and steps of one run.

    Args:
        config: The run.
        directory: Where everything is written.
        data: Its prompts.
        groups: The actors, not started yet.
        progress: Metrics, live line, health.
        stop: Tells when a signal asks for the end.
        publisher: Serves the critic, if the run does that.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        directory: RunDirectory,
        data: LoadedData,
        groups: ActorGroups,
        progress: Progress,
        stop: StopRequest,
        publisher: CriticPublisher,
    ) -> None:
        self.config = config
        self.directory = directory
        self.data = data
        self.groups = groups
        self.progress = progress
        self.stop = stop
        self.policy_version = 0
        self.stages = Stages(config, num_prompts=len(data.train))
        self.heldout = HeldOut(config, directory=directory, examples=data.heldout, groups=groups)
        self._publisher = publisher
        self._checkpointing = Checkpointing(config, directory=directory, groups=groups)
        self._queue = RolloutQueue(config, data=data, groups=groups, stages=self.stages)
        self._adaptive = AdaptiveSettings(config, groups=groups, progress=progress)
        self._records: list[ObjectRef[None]] = []

    # -- the run ------------------------------------------------------------------------------------------

    def run(self, checkpoint: Path | None) -> bool:
        """Play the run from its start, or go on from a checkpoint.

        Returns:
            True if it was played to its end, False if a signal ended it early; then a checkpoint was saved.

        Raises:
            GadError: If something failed for good.
        """
        stages = self.stages
        self.groups.start(
            critic_steps=stages.total_steps, policy_steps=stages.policy_updates, fit_steps=stages.fit_steps
        )
        self.progress.pids = self.groups.pids
        self._publisher.open()
        self.stop.listen()
        if checkpoint is None:
            self._begin()
        else:
            self._restore(checkpoint)
        self._publisher.publish(stages.step, always=True)
        # From here on a first signal lets the step end and saves it.
        self.stop.patient = True
        if stages.in_warmup or stages.in_game:
            self.progress.info(stages.told)
        while not stages.at_end and self.stop.signal_number is None:
            if stages.at_border:
                self._begin_game()
            findings = self.step()
            self._after_step(findings)
        finished = stages.at_end and self.stop.signal_number is None
        if not finished or self.config.checkpoint.at_end:
            self._save()
        self.stop.patient = False
        self._finish_records()
        return finished

    def step(self) -> list[RunFinding]:
        """One step of the run; returns the health rules that began to hold with it."""
        watch, groups = Stopwatch(), self.groups
        self._queue.fill()
        with self._part("rollout"):
            sampled = self._queue.next_step(policy_version=self.policy_version)
        step, prompts, rollouts = sampled.step, sampled.prompts, sampled.rollouts
        rewards, update = None, []

        if self.config.overlap and self.stages.in_game:
            # The policy learns while the critic does, by scores from a pass of their own.
            with watch("score"), self._part("scores"):
                scores = groups.critic.score(prompts, rollouts, what=f"the scores of step {step}")
            rewards = self._reward(sampled, scores)
            update = groups.policy.update(rewards.batch)

        learning = groups.critic.score_and_update(prompts, rollouts, recorded=self._is_recorded(step))
        with watch("update_critic"), self._part("critic"):
            critic = groups.critic.finish(learning, step=step)
        watch.cap("update_critic", critic.seconds)
        watch.add(self._publisher.publish(step, always=step >= self.stages.total_steps))

        rewards = rewards or self._reward(sampled, learning.scores)
        with watch("reward"), self._part("rewards"):
            report = groups.rewards.finish(rewards, step=step)
        self._queue.observe(report.figures)
        if self._is_recorded(step):
            self._record(sampled, learning.scores, rewards)

        if self.stages.in_game:
            update = update or groups.policy.update(rewards.batch)
        elif self.stages.policy_is_fitted(step):
            update = groups.policy.fit(prompts)
        learned = self._learned(critic, watch) | self._synced(update, step, watch)

        self._end_step(step)
        return self._tell(sampled, report.metrics, learned, watch)

    # -- parts of a step --------------------------------------------------------------------------------------

    def _reward(self, sampled: StepRollouts, scores: ObjectRef[ScoreBatch]) -> PendingRewards:
        """Rewards of the step's samples; the KL penalty is part of them where it is placed there."""
        in_reward = self.stages.in_game and self.config.policy.kl.in_reward
        penalty = self.groups.policy.kl_penalty(sampled.rollouts) if in_reward else None
        return self.groups.rewards.reward(
            sampled.prompts, sampled.rollouts, scores, sampled.form, penalty=penalty
        )

    def _learned(self, critic: TrainStats, watch: Stopwatch) -> Metrics:
        """What the critic's update tells. The forward pass that trains it is also the one that scores."""
        metrics = {**critic.metrics, "critic/skipped_steps": float(critic.num_skipped)}
        score_s = metrics.pop("timing_s/score")
        if not (self.config.overlap and self.stages.in_game):
            watch.add({"timing_s/score": score_s, "timing_s/update_critic": -score_s})
        return metrics

    def _synced(self, update: PendingUpdate, step: int, watch: Stopwatch) -> Metrics:
        """Wait for the policy's update, and bring its weights to the engines."""
        if not update:
            return {}
        with watch("update_actor"), self._part("policy"):
            stats = self.groups.policy.finish(update, step=step)
        watch.cap("update_actor", stats.seconds)
        with watch("sync"), self._part("weight sync"):
            synced = self._sync()
        return {**stats.metrics, "actor/skipped_steps": float(stats.num_skipped), **synced}

    def _sync(self) -> Metrics:
        receipt, gap = self.groups.sync()
        self.policy_version = receipt.version
        return {"sync/probe_gap": gap, "sync/bytes": float(receipt.num_bytes)}

    def _evaluate(self, watch: Stopwatch) -> Metrics:
        """Critic and policy on the held-out prompts, where that is due."""
        step, total = self.stages.step, self.stages.total_steps
        border = step in (self.stages.warmup_steps, total)
        if not self.data.heldout or not (border or self._is_due(self.config.evaluation.every, step)):
            return {}
        with watch("eval"), activity("evaluating on the held-out prompts"):
            return self.heldout.evaluate(step=step, policy_version=self.policy_version, last=step == total)

    def _tell(
        self, sampled: StepRollouts, rewards: Metrics, learned: Metrics, watch: Stopwatch
    ) -> list[RunFinding]:
        """Evaluate where that is due, and log the step; the health rules that began to hold with it."""
        step = self.stages.step
        metrics = merge_metrics(
            sampled.metrics,
            rewards,
            learned,
            self.heldout.same_critic(learned),
            self._evaluate(watch),
            self._adaptive.metrics,
            self._publisher.after_step(step),
        )
        watch.add(sampled.timing)
        metrics = merge_metrics(metrics, watch.timing())
        return self.progress.step(step=step, stage=self.stages.name, metrics=metrics)

    def _is_recorded(self, step: int) -> bool:
        return self._is_due(self.config.records.every, step)

    def _record(self, sampled: StepRollouts, scores: ObjectRef[ScoreBatch], rewards: PendingRewards) -> None:
        self._finish_records()
        self._records = [
            self.groups.rewards.record(
                sampled.step, sampled.prompts, sampled.rollouts, scores, rewards.rewards
            )
        ]

    def _finish_records(self) -> None:
        """Wait for the last record to be on disk, so that a failure to write is not lost."""
        self.groups.rewards.finish_records(self._records)
        self._records = []

    def _part(self, name: str) -> AbstractContextManager[None]:
        """Part of a step: shown where there is a live line, and else told only if it is long."""
        return activity(f"step {self.stages.step + 1}, {name}", told=False)

    # -- stages -----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        with activity("testing that the engine takes every weight"):
            self.groups.sync(perturbation=_SELF_TEST_PERTURBATION)
            self._sync()
        with activity("answering the held-out prompts"):
            self.heldout.take_before()
        self._tell_sampling()

    def _tell_sampling(self) -> None:
        """Let the health rules know how the fixed answers were really drawn."""
        sampling = self.heldout.sampling
        if sampling is not None:
            self.progress.evaluated_with(sampling)

    def _begin_game(self) -> None:
        """The stage border: the critic that the warm-up made is kept, and the reference is taken."""
        self._check_ready()
        warmed_up = self.stages.warmup_steps > 0
        if warmed_up:
            with activity("exporting the warm-up's critic"):
                self.heldout.export_critic(WARMUP_CRITIC)
        with activity("beginning the adversarial stage"):
            self.groups.policy.begin_adversarial()
        self.stages.in_game = True
        if warmed_up:
            self._save(pin=END_OF_WARMUP)
        self.progress.info(self.stages.told)

    def _check_ready(self) -> None:
        """What is done where the warm-up took all of its steps and the critic is not ready.

        Raises:
            HealthError: If the run is to stop; the state is saved.
        """
        gate, step = self.config.stages.warmup.until_ready, self.stages.step
        if gate is None or step < self.stages.most_warmup_steps or self.progress.ready:
            return
        text = f"the critic is not ready for the game after {step} steps of warm-up"
        hint = f"give it more steps (stages.warmup.steps), or look at what gad-ray diagnose {self.directory.root} says"
        self.progress.event("not_ready", step=step)
        if gate.otherwise == "continue":
            self.progress.warn("not-ready", f"{text}; {hint}")
            return
        self._save()
        raise HealthError(text, where=f"step {step}", hint=hint)

    def _end_step(self, step: int) -> None:
        """Count the step; let it be the warm-up's last if the critic was ready before it, where that is asked for."""
        self.stages.step = step
        gate = self.config.stages.warmup.until_ready
        if gate is None or not gate.min_steps <= step < self.stages.warmup_steps or not self.progress.ready:
            return
        self._take_warmup(step)
        self.progress.event("ready", step=step)
        self.progress.info(f"the critic is ready: the warm-up ends with step {step}")

    def _take_warmup(self, steps: int) -> None:
        self.stages.end_warmup(steps)
        lengths = {"warmup": steps, "adversarial": self.stages.adversarial_steps}
        self.progress.take_lengths(lengths)

    def _after_step(self, findings: Sequence[RunFinding]) -> None:
        """What follows a step that is not the last: answers to health rules, and a checkpoint where one is due."""
        step = self.stages.step
        if self.stages.at_end:
            return
        self._adaptive.after_step(step)
        on_critical(
            findings,
            how=self.config.health.on_critical,
            directory=self.directory,
            progress=self.progress,
            stop=self.stop,
            save=self._save,
        )
        if self._is_due(self.config.checkpoint.every, step):
            self._save()

    # -- checkpoints ------------------------------------------------------------------------------------------

    def _save(self, pin: str | None = None) -> None:
        with activity("saving a checkpoint"):
            self._finish_records()
            self._checkpointing.save(
                stages=self.stages,
                policy_version=self.policy_version,
                data=self._queue.state(),
                answers=self._adaptive.state(),
                metrics_bytes=self.progress.position(),
                pin=pin,
            )

    def _restore(self, checkpoint: Path) -> None:
        position = read_position(self.directory, checkpoint, self.config)
        with activity(f"restoring step {position.step}"):
            self._checkpointing.restore(checkpoint)
            self._queue.load_state(position.data, step=position.step)
            self.stages.step = position.step
            self.stages.in_game = position.stage == "adversarial"
            if position.warmup_steps is not None:
                self._take_warmup(position.warmup_steps)
            self._sync()
            self.heldout.load_before(step=position.step)
            self._tell_sampling()
        self._checkpointing.go_on_from(position.step)
        self.progress.rewind(step=position.step, metrics_bytes=position.metrics_bytes)
        self._adaptive.load_state(position.answers)
        self.progress.event("resumed", step=position.step, checkpoint=checkpoint.name)
        self.progress.info(f"resumed at step {position.step} from {checkpoint}")

    def _is_due(self, every: int, step: int) -> bool:
        return every > 0 and step % every == 0
