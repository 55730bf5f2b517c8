"""How many replicas there should be: by the work that waits, as the replicas tell it.

Ray Serve carries this module to its controller by value: nothing of this package may be imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

WAITING_S = "waiting_s"
"""A replica's waiting work: seconds that it takes at the pace of late."""

BUSY = "busy"
"""Share of the time in which a replica was scoring, since it last told."""

_HIGHEST_USE = 0.8
"""A replica is given up if the others would be busy for no larger share of the time."""


class ScalingContext(Protocol):
    """What is used of ``ray.serve.config.AutoscalingContext``."""

    @property
    def current_num_replicas(self) -> int:
        """Replicas that run."""
        ...

    @property
    def target_num_replicas(self) -> int:
        """Replicas that are wanted at present."""
        ...

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[Any, float]] | None:
        """Metric → replica → mean of late."""
        ...


class WaitingWork:
    """Asks for another replica when too much work waits, and gives one up when the others can do what it does.

    The number of requests would tell little: one may bring one pair or a thousand, and a replica refuses what it
    cannot do in time long before many of them wait.

    Args:
        target_wait_s: Seconds of work that may wait for each replica.
    """

    def __init__(self, target_wait_s: float) -> None:
        self._target_wait_s = target_wait_s

    def __call__(self, context: ScalingContext) -> tuple[float, dict[str, Any]]:
        """As Ray Serve asks a policy, which then minds the bounds and the delays.

        Args:
            context: What it knows of the deployment.

        Returns:
            The wanted number of replicas, to be rounded up, and no state.
        """
        told = context.aggregated_metrics or {}
        waiting, busy = told.get(WAITING_S), told.get(BUSY)
        if not waiting or not busy:  # none has told anything yet
            return float(context.target_num_replicas), {}
        for_queue = sum(waiting.values()) / self._target_wait_s
        for_use = sum(busy.values()) / _HIGHEST_USE
        return max(for_queue, min(for_use, float(context.current_num_replicas)), 1.0), {}
