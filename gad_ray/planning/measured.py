"""What a run measured: the median seconds of a step's parts, its lengths, and what they say of the cost model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from gad_ray.config import RunConfig, load_config
from gad_ray.errors import ConfigError, DataError
from gad_ray.observability.jsonl import read_lines
from gad_ray.observability.run_dir import RunDirectory
from gad_ray.planning.cost_model import PARTS
from gad_ray.planning.from_config import Lengths

_TIMED = {
    "rollout": ("timing_s/rollout",),
    "critic": ("timing_s/score", "timing_s/update_critic"),
    "reward": ("timing_s/reward",),
    "policy": ("timing_s/update_actor",),
    "sync": ("timing_s/sync",),
}
_OCCASIONAL = ("timing_s/eval", "timing_s/publish")
"""Parts of some steps that are in no plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The steps of one stage.

    Attributes:
        run: The run's name.
        config: Its configuration.
        stage: Which stage.
        num_steps: Its steps.
        lengths: Medians of the lengths that the steps logged.
        parts: Part → median seconds.
        fit: Median seconds of the policy's cross-entropy in the warm-up; 0 where there was none.
        step: Median seconds of a step, without evaluations.
    """

    run: str
    config: RunConfig
    stage: str
    num_steps: int
    lengths: Lengths
    parts: Mapping[str, float]
    fit: float
    step: float


def read_measured(directory: RunDirectory) -> Measured:
    """The steps of a run's game, or of its warm-up where it has not come to the game.

    Raises:
        ConfigError: If its configuration cannot be read.
        DataError: If it has logged no step with times and lengths.
    """
    config = load_config(str(directory.config_yaml))
    # A resumed run plays steps again: the last time counts.
    rows = list(
        {row["step"]: row for row in read_lines(directory.metrics_jsonl).rows if "step" in row}.values()
    )
    for stage in ("adversarial", "warmup"):
        found = [row for row in rows if row.get("stage") == stage and _number(row, "timing_s/step")]
        if found:
            fits = [_number(row, "timing_s/update_actor") for row in rows if row.get("stage") == "warmup"]
            fit = median([seconds for seconds in fits if seconds] or [0.0])
            return _measured(directory.name, config, stage, found, fit=fit)
    raise DataError(
        "the run has logged no step with its times",
        where=str(directory.metrics_jsonl),
        hint="let it play some",
    )


def _measured(
    run: str, config: RunConfig, stage: str, rows: Sequence[Mapping[str, Any]], *, fit: float
) -> Measured:
    steps, parts = [], {part: list[float]() for part in PARTS}
    for row in rows:
        whole = _number(row, "timing_s/step") - sum(_number(row, name) for name in _OCCASIONAL)
        seconds = {part: sum(_number(row, name) for name in names) for part, names in _TIMED.items()}
        seconds["other"] = max(0.0, whole - sum(seconds.values()))
        steps.append(whole)
        for part, value in seconds.items():
            parts[part].append(value)

    def length(name: str) -> float:
        return median(_number(row, name) for row in rows)

    lengths = Lengths(
        prompt=length("prompt_length/mean"),
        response=length("response_length/mean"),
        longest=length("response_length/max"),
        teacher=length("response_length/teacher_mean"),
    )
    if not min(lengths.prompt, lengths.response, lengths.teacher):
        raise DataError(
            "the run has not logged how long its texts are", where=run, hint="take a run of this version"
        )
    return Measured(
        run=run,
        config=config,
        stage=stage,
        num_steps=len(rows),
        lengths=lengths,
        parts={part: median(values) for part, values in parts.items()},
        fit=fit,
        step=median(steps),
    )


def _number(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a run's steps make of the model's seconds.

    Attributes:
        factors: Part, or ``fit``, → times that it took longer than the model says.
        constants: Part → seconds of what the model knows nothing of.
    """

    factors: Mapping[str, float]
    constants: Mapping[str, float]

    @classmethod
    def of(cls, measured: Measured, predicted: Mapping[str, float], *, fit: float) -> Calibration:
        """From a run, and the model's seconds of the game and of ``fit`` for its configuration and lengths.

        Raises:
            ConfigError: If the run's parts went on at the same time: then none was timed by itself.
        """
        config = measured.config
        if config.overlap or config.max_staleness > 0:
            raise ConfigError(
                f"{measured.run} has overlap = {config.overlap} and max_staleness = {config.max_staleness}: its parts go on at "
                "the same time, and their times tell waiting, not work",
                where="--from",
                hint="calibrate on a run with overlap=false and max_staleness=0",
            )
        known = {part for part, seconds in predicted.items() if seconds > 0 and measured.parts[part] > 0}
        factors = {part: measured.parts[part] / predicted[part] for part in known}
        if measured.fit:
            factors["fit"] = measured.fit / fit
        return cls(
            factors=factors,
            constants={part: seconds for part, seconds in measured.parts.items() if part not in known},
        )

    def applied(self, predicted: Mapping[str, float]) -> dict[str, float]:
        """The model's seconds as the run would have taken them."""
        return {
            part: seconds * self.factors.get(part, 1.0) + (0.0 if seconds else self.constants.get(part, 0.0))
            for part, seconds in predicted.items()
        }

    def fitted(self, seconds: float) -> float:
        """The model's seconds of the cross-entropy likewise; as the game's update where the run had none."""
        return seconds * self.factors.get("fit", self.factors.get("policy", 1.0))


NOT_CALIBRATED = Calibration(factors={}, constants={})
