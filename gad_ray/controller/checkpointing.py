"""A run's checkpoints: taken between two steps, and gone back to."""

from __future__ import annotations

from pathlib import Path

from pydantic import JsonValue

from gad_ray.actors.groups import ActorGroups
from gad_ray.checkpoint.store import CheckpointStore, RunPosition
from gad_ray.config import RunConfig, config_hash
from gad_ray.controller.stages import Stages
from gad_ray.errors import CheckpointError
from gad_ray.observability.run_dir import RunDirectory


class Checkpointing:
    """Has the actors save and load, and keeps where the run stood.

    Args:
        config: The run.
        directory: Where checkpoints lie.
        groups: The actors.
    """

    def __init__(self, config: RunConfig, *, directory: RunDirectory, groups: ActorGroups) -> None:
        self._config = config
        self._groups = groups
        self._store = CheckpointStore(directory.checkpoints, keep=config.checkpoint.keep)
        self._saved_step = -1

    def save(
        self,
        *,
        stages: Stages,
        policy_version: int,
        data: dict[str, JsonValue],
        answers: dict[str, JsonValue],
        metrics_bytes: int,
        pin: str | None = None,
    ) -> None:
        """Save the whole state, as of the last step that was trained; unless that was done already.

        Args:
            stages: Where the run stands.
            policy_version: Version of the policy's weights.
            data: Where the data stand.
            answers: Settings that health rules have changed.
            metrics_bytes: Length of metrics.jsonl.
            pin: A name under which it is kept for good.
        """
        if self._saved_step == stages.step and pin is None:
            return
        staging = self._store.begin(stages.step)
        try:
            self._groups.save(staging.path)
        except BaseException:
            self._store.abandon(staging)
            raise
        position = RunPosition(
            stage=stages.name,
            step=stages.step,
            stage_step=stages.stage_step,
            warmup_steps=stages.warmup_steps,
            policy_version=policy_version,
            data=data,
            answers=answers,
            metrics_bytes=metrics_bytes,
            config_hash=config_hash(self._config),
            pin=pin,
        )
        self._store.commit(staging, position)
        self._saved_step = stages.step

    def restore(self, checkpoint: Path) -> None:
        """Have critic and policy take over their saved states.

        Raises:
            CheckpointError: If the checkpoint is not, to the byte, what was committed.
        """
        self._store.verify(checkpoint)
        self._groups.load(checkpoint)

    def go_on_from(self, step: int) -> None:
        """Forget the checkpoints of later steps: the resumed run takes them anew."""
        self._store.discard_after(step)
        self._saved_step = step


def read_position(directory: RunDirectory, checkpoint: Path, config: RunConfig) -> RunPosition:
    """Where a run stood at a checkpoint.

    Raises:
        CheckpointError: If that cannot be read, or the checkpoint was made with other settings.
    """
    position = CheckpointStore(directory.checkpoints, keep=config.checkpoint.keep).load_meta(checkpoint)
    if position.config_hash != config_hash(config):
        raise CheckpointError(
            "was made with other settings of data, models, losses or sampling",
            where=str(checkpoint),
            hint=f"resume with the run's own settings ({directory.config_yaml}); only the length of the "
            "adversarial stage, deadlines, records, checkpoints, health, report and serve may differ",
        )
    return position
