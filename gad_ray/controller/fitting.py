"""The driver's side of an offline fit.

::

    prompts ─► rollout workers ─► the base policy's answers (held-out before; SODA: rejected responses)
                                       │ then they leave
    teacher's text ─► Ray Train's workers ─► exported policy ─► rollout workers ─► held-out after

Workers and rollout take turns: neither waits for the other's memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ray

from gad_ray.activity import activity, doing
from gad_ray.actors.groups import ActorGroups
from gad_ray.batch import Example, Float32, PromptBatch, RolloutBatch, SamplingSettings
from gad_ray.checkpoint.store import CheckpointStore, RunPosition, Staging
from gad_ray.config import FitMethod, RunConfig, fit_hash
from gad_ray.controller.heldout import (
    GreedyAnswers,
    answer,
    load_answers_before,
    save_nll,
    save_samples,
    spread_out,
)
from gad_ray.controller.progress import Progress
from gad_ray.data.cursor import PromptCursor
from gad_ray.data.dataset import LoadedData
from gad_ray.errors import CheckpointError
from gad_ray.evaluation.heldout import (
    TextAnswers,
    nll_row,
    sample_rows,
    save_rollouts,
    text_rows,
    unchanged_row,
)
from gad_ray.fitting.job import FitJob
from gad_ray.fitting.mailbox import (
    Begin,
    Doing,
    Exported,
    Failed,
    Joined,
    Mailbox,
    NllBefore,
    Position,
    Request,
    Saved,
    SaveRequest,
    StepDone,
)
from gad_ray.fitting.responses import draw_responses, open_responses
from gad_ray.fitting.trainer import FitTrainer
from gad_ray.interrupt import StopRequest
from gad_ray.observability.run_dir import RunDirectory
from gad_ray.observability.summary import RunSummary, SampleRow, SummaryRow

_BATCHES_AT_ONCE = 4
"""Full batches of the engine between two saves of the student's responses."""


class Fitting:
    """The driver's side of one fit.

    Args:
        config: The run.
        method: How to fit.
        directory: Where everything is written.
        data: The prompts.
        progress: Metrics, live line.
        stop: Tells when a signal asks for the end.
        total_steps: Optimiser steps of the fit.
    """

    def __init__(
        self,
        config: RunConfig,
        method: FitMethod,
        *,
        directory: RunDirectory,
        data: LoadedData,
        progress: Progress,
        stop: StopRequest,
        total_steps: int,
    ) -> None:
        self._config = config
        self._method: FitMethod = method
        self._directory = directory
        self._data = data
        self._progress = progress
        self._stop = stop
        self._total_steps = total_steps
        self._hash = fit_hash(config, method)
        self._store = CheckpointStore(directory.checkpoints, keep=config.checkpoint.keep)
        self._responses = directory.root.absolute() / "responses"
        self._heldout = PromptBatch(step=0, examples=data.heldout) if data.heldout else None
        self._staging: Staging | None = None
        self._starts = 0
        self._pids: dict[int, int] = {}
        self._exported = False
        self._nll_after: Float32 | None = None
        self.step = 0

    @property
    def export(self) -> Path:
        """Where the fitted policy is written."""
        return self._directory.exports / "policy"

    # -- the fit ------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Fit from the last checkpoint, or from the start.

        Returns:
            True if it came to its end, False if a signal ended it early; then a checkpoint was saved.

        Raises:
            GadError: If something failed for good.
        """
        checkpoint = self._store.latest()
        self._take_answers(again=checkpoint is None)
        doing("starting the workers of the fit")
        job = self._job()
        trainer = FitTrainer(job, storage=self._directory.root.absolute() / "ray-train", stop=self._stop)
        try:
            trainer.run(self._answer)
        finally:
            doing(None)
            self._stop.patient = False
            self._abandon()
            ray.kill(job.mailbox)
        return self._exported

    def _job(self) -> FitJob:
        root = self._directory.root.absolute()
        return FitJob(
            config=self._config,
            method=self._method,
            total_steps=self._total_steps,
            train=ray.put(self._data.train),
            heldout=ray.put(self._data.heldout),
            responses=self._responses,
            reference=root / "responses" / "reference",
            export=self.export.absolute(),
            logs=self._directory.logs.absolute(),
            mailbox=ray.remote(num_cpus=0)(Mailbox).remote(),
        )

    # -- the policy's own text ------------------------------------------------------------------------------

    def _take_answers(self, *, again: bool) -> None:
        """What the base policy writes: to the held-out prompts, and for SODA to those that are trained on."""
        before = self._directory.answers_before
        asks_heldout = self._heldout is not None and (again or not before.exists())
        wanted: list[Example] = []
        answered: frozenset[str] = frozenset()
        if self._method == "soda":
            answered = open_responses(self._responses, settings_hash=self._hash)
            wanted = [example for example in self._trained_on() if example.id not in answered]
        if not asks_heldout and not wanted:
            return
        groups = self._groups(self._config)
        try:
            with activity("starting the rollout workers"):
                groups.start_rollout()
            if asks_heldout:
                assert self._heldout is not None
                with activity("answering the held-out prompts"):
                    save_rollouts(before, answer(self._config, groups, self._heldout), self._heldout)
                    self._greedy(self._config).take_before(groups=groups)
            if wanted:
                self._draw(groups, wanted, answered)
        finally:
            groups.stop()

    def _draw(self, groups: ActorGroups, wanted: Sequence[Example], answered: frozenset[str]) -> None:
        rollout = self._config.rollout
        count = self._config.fit.soda.responses_per_prompt
        sampling = SamplingSettings.of(rollout, num_responses=count, seed=self._config.seed)
        failed = draw_responses(
            groups,
            self._responses,
            wanted,
            sampling,
            answered=answered,
            prompts_at_once=max(1, _BATCHES_AT_ONCE * rollout.at_once // count) * rollout.num_workers,
            deadline_s=self._config.limits.checkpoint_s,
            told=lambda done, total: self._progress.info(
                f"the base policy has answered {done} of {total} training prompts"
            ),
        )
        if failed:
            self._progress.event("failed_generations", count=failed)
            self._progress.info(f"{failed} responses failed even when retried: their pairs are left out")

    def _trained_on(self) -> list[Example]:
        """The prompts of the fit's steps, each once, in the order in which they come."""
        train, cursor = self._data.train, prompt_cursor(self._config, self._method, self._data)
        order: dict[int, None] = {}
        for _ in range(self._total_steps):
            order |= dict.fromkeys(cursor.next_batch())
            if len(order) == len(train):
                break
        return [train[i] for i in order]

    def _groups(self, config: RunConfig) -> ActorGroups:
        return ActorGroups(config, self._directory, self._stop, kinds=("rollout",))

    # -- answers to the workers -----------------------------------------------------------------------------

    def _answer(self, request: Request) -> object:
        match request:
            case Begin():
                return self._begin()
            case Joined():
                self._pids[request.rank] = request.pid
                self._progress.pids = tuple(self._pids.values())
            case Doing():
                doing(request.what)
            case NllBefore():
                save_nll(self._directory, request.values)
            case StepDone():
                self.step = request.step
                self._progress.step(step=request.step, stage=self._method, metrics=request.metrics)
                # From here on a first signal lets the step end and saves it.
                self._stop.patient = True
                left = self.step < self._total_steps
                doing(f"step {self.step + 1}" if left else "exporting the policy", told=not left)
                return self._stop.signal_number is not None
            case SaveRequest():
                doing("saving a checkpoint")
                self._staging = self._store.begin(request.step)
                return str(self._staging.path.absolute())
            case Saved():
                self._commit(request)
                doing(
                    f"step {self.step + 1}" if self.step < self._total_steps else "exporting the policy",
                    told=False,
                )
            case Exported():
                self._exported, self._nll_after = True, request.nll
                self._stop.patient = False
            case Failed():
                raise request.error
        return None

    def _begin(self) -> Position | None:
        """Where the workers begin, at first and whenever they were lost."""
        self._abandon()
        self._stop.patient = False
        lost_at, checkpoint, position = self.step, self._store.latest(), None
        if checkpoint is not None:
            position = read_position(self._directory, checkpoint, self._config, self._method)
            self._store.verify(checkpoint)
        self.step = 0 if position is None else position.step
        metrics_bytes = 0 if position is None else position.metrics_bytes
        if position is not None or self._progress.position() > 0:
            self._progress.rewind(step=self.step, metrics_bytes=metrics_bytes)
        if self._starts:
            self._progress.event("workers_lost", step=lost_at, resumed_at=self.step, restart=self._starts)
            self._progress.info(
                f"workers of the fit were lost after step {lost_at}: started anew at step {self.step} "
                f"(restart {self._starts} of at most {self._config.fit.max_failures})"
            )
        elif checkpoint is not None and position is not None:
            self._progress.event("resumed", step=self.step, checkpoint=checkpoint.name)
            self._progress.info(f"resumed at step {self.step} from {checkpoint}")
        self._starts += 1
        if checkpoint is None or position is None:
            doing("step 1", told=False)
            return None
        doing(f"step {position.step + 1}", told=False)
        return Position(checkpoint=str(checkpoint.absolute()), step=position.step, data=position.data)

    # -- checkpoints ------------------------------------------------------------------------------------------

    def _commit(self, saved: Saved) -> None:
        assert self._staging is not None
        staging, self._staging = self._staging, None
        self._store.commit(
            staging,
            RunPosition(
                stage=self._method,
                step=saved.step,
                stage_step=saved.step,
                policy_version=saved.policy_version,
                data=dict(saved.data),
                metrics_bytes=self._progress.position(),
                config_hash=self._hash,
            ),
        )

    def _abandon(self) -> None:
        """Give up a checkpoint whose writer was lost."""
        if self._staging is not None:
            self._store.abandon(self._staging)
            self._staging = None

    # -- the end ------------------------------------------------------------------------------------------------

    def account(self, *, answer_again: bool) -> RunSummary:
        """Set before and after side by side.

        Args:
            answer_again: Let the fitted policy answer the held-out prompts; else only likelihoods are compared.
        """
        rows: tuple[SummaryRow, ...] = ()
        samples: tuple[SampleRow, ...] = ()
        if self._heldout is not None:
            assert self._nll_after is not None
            before = load_answers_before(self._directory)
            rows = (nll_row(before.nll, self._nll_after),)
            if answer_again:
                rollouts, unchanged = self._answer_again(self._heldout)
                after = TextAnswers(rollouts=rollouts, nll=self._nll_after)
                rows, samples = text_rows(before, after), sample_rows(self._heldout, before, after)
                if unchanged is not None:
                    rows = (*rows, unchanged_row(unchanged))
                save_samples(self._directory, samples)
        return RunSummary(
            name=self._directory.name,
            rows=rows,
            samples=spread_out(samples, self._config.evaluation.sample_rows),
            paths=self._paths(),
            timing=dict(self._progress.timing),
            peak_memory_gib=self._progress.peak_memory_gib,
        )

    def _greedy(self, config: RunConfig) -> GreedyAnswers:
        examples = () if self._heldout is None else self._heldout.examples
        return GreedyAnswers(config, directory=self._directory, examples=examples)

    def _answer_again(self, prompts: PromptBatch) -> tuple[RolloutBatch, float | None]:
        """The fitted policy's answers, and the share of greedy ones that are as before.

        By an engine that has loaded what was exported.
        """
        model = self._config.policy.model.model_copy(update={"model": str(self.export.absolute())})
        policy = self._config.policy.model_copy(update={"model": model})
        config = self._config.model_copy(update={"policy": policy})
        groups = self._groups(config)
        try:
            with activity("comparing before and after"):
                groups.start_rollout()
                after = answer(self._config, groups, prompts)
                unchanged = self._greedy(config).share_unchanged(groups=groups)
        finally:
            groups.stop()
        save_rollouts(self._directory.answers_after, after, self._heldout)
        return after, unchanged

    def _paths(self) -> tuple[tuple[str, str], ...]:
        directory = self._directory
        paths = [
            ("model", self.export),
            ("metrics", directory.metrics_jsonl),
            ("TensorBoard", directory.tensorboard),
            ("student's responses", self._responses),
            ("held-out answers", directory.samples_jsonl),
            ("checkpoints", directory.checkpoints),
            ("summary", directory.summary_json),
            ("report", directory.report_html),
        ]
        last = {directory.summary_json, directory.report_html}
        written = [(label, path) for label, path in paths if path.exists() or path in last]
        return tuple((label, str(path)) for label, path in written)


def prompt_cursor(config: RunConfig, method: FitMethod, data: LoadedData) -> PromptCursor:
    """The order in which a fit takes its prompts.

    Raises:
        DataError: If there are fewer of them than a step takes.
    """
    ids = [example.id for example in data.train]
    return PromptCursor(ids, seed=config.data.seed, batch_size=config.prompts_per_fit_step(method))


def read_position(
    directory: RunDirectory, checkpoint: Path, config: RunConfig, method: FitMethod
) -> RunPosition:
    """Where a checkpoint stands.

    Raises:
        CheckpointError: If it is none of this fit.
    """
    position = CheckpointStore(directory.checkpoints, keep=config.checkpoint.keep).load_meta(checkpoint)
    if position.stage != method:
        raise CheckpointError(
            f"is of the stage '{position.stage}', not of a fit by {method}",
            where=str(checkpoint),
            hint="resume the run with the command that began it, or fit under another name",
        )
    if position.config_hash != fit_hash(config, method):
        raise CheckpointError(
            "was made with other settings of data, model, method or sampling",
            where=str(checkpoint),
            hint=f"resume with the fit's own settings ({directory.config_yaml}); only its length, deadlines and "
            "checkpoints may differ",
        )
    return position
