"""The student's own responses, drawn once: SODA's rejected side. Kept in parts, so that a break loses little."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import ray

from gad_ray.actors.groups import ActorGroups
from gad_ray.actors.rollouts import Rollouts
from gad_ray.batch import Example, PromptBatch, RolloutBatch, SamplingSettings
from gad_ray.errors import CheckpointError
from gad_ray.evaluation.heldout import load_rollouts, save_rollouts
from gad_ray.observability.files import write_text

_SETTINGS = "settings.json"


def load_responses(directory: Path) -> RolloutBatch:
    """All responses that were drawn.

    Raises:
        CheckpointError: If a part cannot be read.
    """
    return RolloutBatch.concat([load_rollouts(path) for path in _parts(directory)])


def open_responses(directory: Path, *, settings_hash: str) -> frozenset[str]:
    """Make the folder of the responses, or take up that of a fit that goes on.

    Args:
        directory: The folder.
        settings_hash: Digest of all that shapes the responses.

    Returns:
        Ids of the examples that have been answered.

    Raises:
        CheckpointError: If it holds responses drawn with other settings.
    """
    directory.mkdir(parents=True, exist_ok=True)
    record = directory / _SETTINGS
    if not record.exists():
        write_text(record, json.dumps({"settings": settings_hash}) + "\n")
    if json.loads(record.read_text(encoding="utf-8"))["settings"] != settings_hash:
        raise CheckpointError(
            "holds responses that were drawn with other settings of data, model or sampling",
            where=str(directory),
            hint="resume with the fit's own settings, or start a new one",
        )
    return frozenset(i for path in _parts(directory) for i in load_rollouts(path).example_ids)


def draw_responses(
    groups: ActorGroups,
    directory: Path,
    examples: Sequence[Example],
    sampling: SamplingSettings,
    *,
    answered: frozenset[str],
    prompts_at_once: int,
    deadline_s: float,
    told: Callable[[int, int], None],
) -> int:
    """Draw responses to all examples that have none yet; only references pass through here.

    Args:
        groups: The rollout workers, with the base policy's weights.
        directory: Where the responses go.
        examples: The prompts.
        sampling: How to draw. A response depends on nothing but its prompt, its number and the seed.
        answered: What :func:`open_responses` gave.
        prompts_at_once: Prompts between two saves.
        deadline_s: Deadline of each of these.
        told: Called with the number of prompts done and of all, after each.

    Returns:
        Generations that failed even when retried; their prompts have fewer responses, or none.
    """
    left = [example for example in examples if example.id not in answered]
    failed = 0
    for start in range(0, len(left), prompts_at_once):
        part = left[start : start + prompts_at_once]
        pending = groups.rollout.generate(PromptBatch(step=0, examples=tuple(part)), sampling)
        groups.rollout.receipts(pending, what="the student's responses")
        path = directory / f"part-{len(_parts(directory)):06d}.parquet"
        (counted,) = groups.waiter.get(
            [_write.remote(str(path), pending.rollouts)],
            what="writing the student's responses",
            deadline_s=deadline_s,
        )
        failed += int(counted)
        told(start + len(part), len(left))
    return failed


@ray.remote(num_cpus=0)
def _write(path: str, rollouts: Rollouts) -> int:
    """Write one part; returns the number of failed generations."""
    joined = rollouts.join()
    save_rollouts(Path(path), joined)
    return joined.num_failed


def _parts(directory: Path) -> list[Path]:
    return sorted(directory.glob("part-*.parquet"))
