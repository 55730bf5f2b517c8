"""Small remote work that belongs to no actor."""

from __future__ import annotations

from pathlib import Path

import ray

from gad_ray.batch import PromptBatch, RolloutBatch, ScoreBatch
from gad_ray.observability.records import ScoreRecordWriter


@ray.remote(num_cpus=0)
def write_records(
    directory: str,
    max_rows: int,
    step: int,
    prompts: PromptBatch,
    scores: ScoreBatch,
    *rollouts: RolloutBatch,
) -> None:
    """Write the score records of one step."""
    writer = ScoreRecordWriter(Path(directory), max_rows_per_step=max_rows)
    writer.write(step, prompts, RolloutBatch.concat(rollouts), scores)
