"""The driver of a run: it moves references, never a tensor.

::

    prompts ─► rollout workers ─► critic group ─► policy group ─► weights ─► rollout workers
               (RolloutBatch)     (ScoreBatch)    (update)        (snapshot, verified)

Each step takes ``prompts_per_step`` prompts, and more where groups without spread are refilled. In the warm-up the policy stands still or is fitted to the
teacher's text while the critic learns to rank; then both play. Responses are asked for up to
``max_staleness`` steps ahead; with 0, the default, every sample comes from the policy that it trains.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from gad_ray.activity import activity
from gad_ray.actors.groups import Groups
from gad_ray.actors.tasks import write_records
from gad_ray.batch import Metrics, TrainStats, merge_metrics
from gad_ray.config import RunConfig
from gad_ray.controller.answering import Answering
from gad_ray.controller.asking import Answered, Asking
from gad_ray.controller.heed import heed
from gad_ray.controller.heldout import WARMUP_CRITIC, HeldOut
from gad_ray.controller.interrupt import StopRequest
from gad_ray.controller.online import OnlineCritic
from gad_ray.controller.progress import Progress
from gad_ray.controller.saving import Saving, read_position
from gad_ray.data.dataset import LoadedData
from gad_ray.errors import HealthError, TrainingError
from gad_ray.health import Finding
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
        online: Serves the critic, if the run does that.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        directory: RunDirectory,
        data: LoadedData,
        groups: Groups,
        progress: Progress,
        stop: StopRequest,
        online: OnlineCritic,
    ) -> None:
        self.config = config
        self.directory = directory
        self.data = data
        self.groups = groups
        self.progress = progress
        self.stop = stop
        self._online = online
        sizes = {"num_prompts": len(data.train), "prompts_per_step": config.prompts_per_step}
        self.warmup_steps = config.stages.warmup.in_steps(**sizes)
        self._most_warmup_steps = self.warmup_steps
        self.total_steps = self.warmup_steps + config.stages.adversarial.in_steps(**sizes)
        self.step = 0
        self._saving = Saving(config, directory=directory, groups=groups)
        self.heldout = HeldOut(config, directory=directory, examples=data.heldout, groups=groups)
        self._asking = Asking(
            config,
            data=data,
            groups=groups,
            warmup_steps=self.warmup_steps,
            total_steps=self.total_steps,
        )
        self._answering = Answering(config, groups=groups, progress=progress)
        self.policy_version = 0
        self._in_game = False
        self._records: list[Any] = []

    # -- the run ------------------------------------------------------------------------------------------

    def run(self, checkpoint: Path | None) -> bool:
        """Play the run from its start, or go on from a checkpoint.

        Returns:
            True if it was played to its end, False if a signal ended it early; then a checkpoint was saved.

        Raises:
            GadError: If something failed for good.
        """
        adversarial_steps = self.total_steps - self.warmup_steps
        fit_steps = sum(self._policy_is_fitted(step) for step in range(1, self.warmup_steps + 1))
        per_step = self.config.prompts_per_step // self.config.mini_batch_prompts
        self.groups.start(
            critic_steps=self.total_steps,
            policy_steps=adversarial_steps * per_step * self.config.policy.epochs_per_step,
            fit_steps=fit_steps,
        )
        self.progress.pids = self.groups.pids
        self._online.open()
        self.stop.listen()
        if checkpoint is None:
            self._begin()
        else:
            self._restore(checkpoint)
        self._online.publish(self.step, always=True)
        # From here on a first signal lets the step end and saves it.
        self.stop.patient = True
        if self.step < self.warmup_steps:
            self._tell_stage("warmup", self.step, self.warmup_steps)
        elif self._in_game:
            self._tell_stage("adversarial", self.step, self.total_steps)
        while self.step < self.total_steps and self.stop.signal_number is None:
            if self.step == self.warmup_steps and not self._in_game:
                self._begin_game()
            findings = self._play_step()
            if self.step < self.total_steps:
                self._answering.after_step(self.step)
                heed(
                    findings,
                    how=self.config.health.on_critical,
                    directory=self.directory,
                    progress=self.progress,
                    stop=self.stop,
                    save=self._save,
                )
            every = self.config.checkpoint.every
            if every and self.step % every == 0 and self.step < self.total_steps:
                self._save()
        finished = self.step >= self.total_steps and self.stop.signal_number is None
        if not finished or self.config.checkpoint.at_end:
            self._save()
        self.stop.patient = False
        self._finish_records()
        return finished

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

    def _end_warmup_if_ready(self) -> None:
        """Let this step be the warm-up's last if the critic was ready before it, where that is asked for."""
        gate = self.config.stages.warmup.until_ready
        if gate is None or not gate.min_steps <= self.step < self.warmup_steps or not self.progress.ready:
            return
        self._take_warmup(self.step)
        self.progress.event("ready", step=self.step)
        self.progress.info(f"the critic is ready: the warm-up ends with step {self.step}")

    def _take_warmup(self, steps: int) -> None:
        """Go by this length of the warm-up; the game keeps its own."""
        self.total_steps += steps - self.warmup_steps
        self.warmup_steps = steps
        self._asking.take_lengths(warmup_steps=steps, total_steps=self.total_steps)
        self.progress.take_lengths({"warmup": steps, "adversarial": self.total_steps - steps})

    def _check_ready(self) -> None:
        """What is done where the warm-up took all of its steps and the critic is not ready.

        Raises:
            HealthError: If the run is to stop; the state is saved.
        """
        gate = self.config.stages.warmup.until_ready
        if gate is None or self.step < self._most_warmup_steps or self.progress.ready:
            return
        text = f"the critic is not ready for the game after {self.step} steps of warm-up"
        mend = f"give it more steps (stages.warmup.steps), or look at what gad-ray diagnose {self.directory.root} says"
        self.progress.event("not_ready", step=self.step)
        if gate.otherwise == "continue":
            self.progress.warn("not-ready", f"{text}; {mend}")
            return
        self._save()
        raise HealthError(text, where=f"step {self.step}", mend=mend)

    def _begin_game(self) -> None:
        """The stage border: the critic that the warm-up made is kept, and the reference is taken."""
        self._check_ready()
        if self.warmup_steps > 0:
            with activity("exporting the warm-up's critic"):
                self.heldout.export_critic(WARMUP_CRITIC)
        with activity("beginning the adversarial stage"):
            self._wait([actor.begin_adversarial.remote() for actor in self.groups.policy], "the KL reference")
        self._in_game = True
        if self.warmup_steps > 0:
            self._save(pin=END_OF_WARMUP)
        self._tell_stage("adversarial", self.step, self.total_steps)

    def _tell_stage(self, stage: str, done: int, end: int) -> None:
        self.progress.info(f"stage {stage}: steps {done + 1} to {end}")

    # -- one step -------------------------------------------------------------------------------------------

    def _play_step(self) -> list[Finding]:
        """Consumes the oldest responses; waits for them, for the critic, for the policy, for the engines."""
        started = time.perf_counter()
        self._asking.ahead()
        with self._part("rollout"):
            answered = self._asking.next_step()
        receipts = answered.receipts
        staleness = self.policy_version - min(r.policy_version for r in receipts)
        if staleness > self.config.max_staleness:
            raise TrainingError(
                f"step {answered.step} holds samples {staleness} versions old; max_staleness = {self.config.max_staleness}"
            )
        num_tokens = sum(r.num_tokens for r in receipts)
        timing = {name: s for name, s in answered.metrics.items() if name.startswith("timing_s/")}
        metrics = {name: value for name, value in answered.metrics.items() if name not in timing}
        metrics["rollout/staleness"] = float(staleness)
        metrics["rollout/tokens"] = float(num_tokens)
        metrics["perf/rollout_tokens_per_s"] = num_tokens / answered.generation_s
        learned = self._learn(answered, timing)
        self.step = answered.step
        self._end_warmup_if_ready()
        metrics = merge_metrics(
            metrics,
            learned,
            self.heldout.same_critic(learned),
            self._evaluate(timing),
            self._answering.metrics,
            self._online.after_step(self.step),
        )
        timing["timing_s/step"] = time.perf_counter() - started
        stage = "adversarial" if self._in_game else "warmup"
        return self.progress.step(step=self.step, stage=stage, metrics=merge_metrics(metrics, timing))

    def _learn(self, answered: Answered, timing: Metrics) -> Metrics:
        """Critic, then policy; with ``overlap`` both at once, on scores from a pass of their own."""
        record = self._is_due(self.config.records.every, answered.step)
        batches = answered.batches
        update_s = self.config.limits.update_s
        if self.config.overlap and self._in_game:
            with self._timed(timing, "score"), self._part("scores", answered.step):
                scored = [a.score_batch.remote(answered.prompts, *batches) for a in self.groups.critic]
                what = f"the scores of step {answered.step}"
                self.groups.waiter.get(
                    [r[1] for r in scored], what=what, deadline_s=self.config.limits.score_s
                )
            policy = [a.update.remote(answered.prompts, scored[0][0], *batches) for a in self.groups.policy]
        else:
            policy = []
        scored_apart = bool(policy)
        # Rank 0 alone answers for the group: the others need not take the fingerprint.
        judged = [
            a.judge.remote(record and rank == 0, answered.prompts, *batches)
            for rank, a in enumerate(self.groups.critic)
        ]
        with self._timed(timing, "update_critic"), self._part("critic", answered.step):
            what = f"the critic's update of step {answered.step}"
            told = [*(r[1] for r in judged), judged[0][2]]
            critic_stats, *_, figures = self.groups.waiter.get(told, what=what, deadline_s=update_s)
        timing.update(self._online.publish(answered.step, always=answered.step >= self.total_steps))
        self._asking.observe(figures)
        scores = judged[0][0]
        if record:
            self._record(answered, scores)
        metrics = dict(critic_stats.metrics)
        metrics["critic/skipped_steps"] = float(critic_stats.num_skipped)
        # The forward pass that trains the critic is also the one that scores.
        score_s = metrics.pop("timing_s/score")
        if not scored_apart:
            timing["timing_s/score"] = timing.get("timing_s/score", 0.0) + score_s
            timing["timing_s/update_critic"] -= score_s
        if self._in_game and not policy:
            policy = [a.update.remote(answered.prompts, scores, *batches) for a in self.groups.policy]
        if not self._in_game and self._policy_is_fitted(answered.step):
            policy = [a.fit.remote(answered.prompts) for a in self.groups.policy]
        if policy:
            with self._timed(timing, "update_actor"), self._part("policy", answered.step):
                what = f"the policy's update of step {answered.step}"
                stats: TrainStats = self.groups.waiter.get(policy, what=what, deadline_s=update_s)[0]
            metrics = merge_metrics(metrics, stats.metrics, {"actor/skipped_steps": float(stats.num_skipped)})
            with self._timed(timing, "sync"), self._part("weight sync", answered.step):
                metrics["sync/probe_gap"] = self._sync()
        return metrics

    def _part(self, name: str, step: int | None = None) -> AbstractContextManager[None]:
        """Part of a step: shown where there is a live line, and else told only if it is long."""
        return activity(f"step {self.step + 1 if step is None else step}, {name}", told=False)

    def _policy_is_fitted(self, step: int) -> bool:
        warmup = self.config.stages.warmup
        return warmup.policy == "cross_entropy" and step > warmup.critic_only_steps

    def _sync(self) -> float:
        self.policy_version, gap = self.groups.sync()
        return gap

    def _evaluate(self, timing: Metrics) -> Metrics:
        """Critic and policy on the held-out prompts, where that is due."""
        border = self.step in (self.warmup_steps, self.total_steps)
        if not self.data.heldout or not (border or self._is_due(self.config.evaluation.every, self.step)):
            return {}
        with self._timed(timing, "eval"), activity("evaluating on the held-out prompts"):
            return self.heldout.evaluate(
                step=self.step, policy_version=self.policy_version, last=self.step == self.total_steps
            )

    def _record(self, answered: Answered, scores: Any) -> None:
        self._finish_records()
        self._records = [
            write_records.remote(
                str(self.directory.records),
                self.config.records.max_rows_per_step,
                answered.step,
                answered.prompts,
                scores,
                *answered.batches,
            )
        ]

    def _finish_records(self) -> None:
        """Wait for the last record to be on disk, so that a failure to write is not lost."""
        self._wait(self._records, "writing the score records")
        self._records = []

    # -- checkpoints ------------------------------------------------------------------------------------------

    def _save(self, pin: str | None = None) -> None:
        with activity("saving a checkpoint"):
            self._finish_records()
            self._saving.save(
                step=self.step,
                stage="adversarial" if self._in_game else "warmup",
                stage_step=self.step - (self.warmup_steps if self._in_game else 0),
                warmup_steps=self.warmup_steps,
                policy_version=self.policy_version,
                data=self._asking.state(),
                answers=self._answering.state(),
                metrics_bytes=self.progress.position(),
                pin=pin,
            )

    def _restore(self, checkpoint: Path) -> None:
        position = read_position(self.directory, checkpoint, self.config)
        with activity(f"restoring step {position.step}"):
            self._saving.restore(checkpoint)
            self._asking.load_state(position.data, step=position.step)
            self.step = position.step
            self._in_game = position.stage == "adversarial"
            if position.warmup_steps is not None:
                self._take_warmup(position.warmup_steps)
            self._sync()
            self.heldout.load_before(step=position.step)
            self._tell_sampling()
        self._saving.go_on_from(position.step)
        self.progress.rewind(step=position.step, metrics_bytes=position.metrics_bytes)
        self._answering.load_state(position.answers)
        self.progress.event("resumed", step=position.step, checkpoint=checkpoint.name)
        self.progress.info(f"resumed at step {position.step} from {checkpoint}")

    # -- helpers ----------------------------------------------------------------------------------------------

    def _wait(self, refs: list[Any], what: str) -> None:
        self.groups.waiter.get(refs, what=what, deadline_s=self.config.limits.checkpoint_s)

    def _is_due(self, every: int, step: int) -> bool:
        return every > 0 and step % every == 0

    @contextmanager
    def _timed(self, timing: Metrics, name: str) -> Generator[None]:
        started = time.perf_counter()
        yield
        key = f"timing_s/{name}"
        timing[key] = timing.get(key, 0.0) + time.perf_counter() - started
