"""What the health rules tell of a run."""

from __future__ import annotations

from gad_ray.observability.metrics import counter, gauge

METRICS = (
    counter("health/findings", "Health rules that began to hold"),
    gauge("health/active_rules", "Health rules that hold"),
    gauge("health/critical_rules", "Health rules of severity critical that hold"),
    gauge(
        "perf/step_time_ratio",
        "Wall time of the step, evaluation left out, over the median of its stage so far",
    ),
)
