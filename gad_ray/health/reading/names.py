"""What others call the metrics that rules look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gad_ray.observability.metrics import METRICS

_ALIASES: Mapping[str, str] = {
    # The reference implementation and forks of it.
    "critic/teacher_value_mean": "critic/teacher_score_mean",
    "critic/student_value_mean": "critic/student_score_mean",
    "actor/policy_loss": "actor/pg_loss",
    "val/d_acc": "eval/d_acc",
    "val/score_diff": "eval/score_diff",
    # verl.
    "critic/advantages/max": "actor/adv_max",
    "critic/advantages/min": "actor/adv_min",
    "critic/advantages/std": "actor/adv_std",
    "actor/pg_clipfrac": "actor/clipfrac",
    "actor/entropy_loss": "actor/entropy",
    "rollout_corr/k3_kl": "rollout/mismatch_kl",
    "mismatch/mismatch_k3_kl": "rollout/mismatch_kl",
    "timing_s/gen": "timing_s/rollout",
    "timing/step": "timing_s/step",
}
"""Another's name → ours, where ours is not logged beside it."""

_THEIRS = {"actor/adv_min"}
"""Names that rules know and no run of ours logs."""

_RAW = {"critic/raw_score_diff": "critic/score_diff"}
"""The same, but taken even if ours is logged: there it is of normalised scores."""

_UNCLEAR = {"grad_norm", "grad_norm_before_clip", "lr", "version", "skipped_steps", "loss", "temperature"}
"""Last parts of names that mean nothing without their group."""

STEP_NAMES = ("step", "_step", "global_step", "training/global_step", "train/step", "train/global_step")
"""Under what a row may tell its step."""


def _short_names() -> dict[str, str]:
    """``d_acc`` → ``critic/d_acc``, and so on for critic and policy, where one metric alone ends so."""
    found: dict[str, list[str]] = {}
    for name in METRICS:
        group, _, last = name.partition("/")
        if group in {"critic", "actor"} and "/" not in last and last not in _UNCLEAR:
            found.setdefault(last, []).append(name)
    return {last: names[0] for last, names in found.items() if len(names) == 1}


_SHORT = _short_names()


def number(value: object) -> float | None:
    """A number of a log as a float; None for what is none. Booleans are none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str) and value.lower() in {"nan", "inf", "-inf", "infinity", "-infinity"}:
        return float(value)
    return None


def translate(row: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """The registered metrics of a row.

    Returns:
        The metrics by our names, and another's name → ours for those that were called otherwise.
    """
    metrics = {
        name: value
        for name in row
        if (name in METRICS or name in _THEIRS) and (value := number(row[name])) is not None
    }
    renamed: dict[str, str] = {}
    for name in row:
        ours = _RAW.get(name) or _ALIASES.get(name) or _SHORT.get(name)
        value = number(row[name])
        if ours is None or value is None or (ours in metrics and name not in _RAW):
            continue
        metrics[ours] = value
        renamed[name] = ours
    return metrics, renamed
