"""What a run does about its own health."""

from __future__ import annotations

from typing import Literal

from gad_ray.config.base import StrictModel


class HealthConfig(StrictModel):
    """Health rules are judged after every step; what begins to hold is shown, logged and counted."""

    on_critical: Literal["continue", "stop", "pause"] = "continue"
    """When a rule of severity critical begins to hold. ``continue``: only say so. ``stop``: save a checkpoint and end
    with exit code 3. ``pause``: save a checkpoint and wait, models loaded, until a file ``resume`` lies in the run's
    directory; SIGINT and SIGTERM end the wait and the run."""

    language: Literal["en", "zh"] = "en"
    """Language of the findings on the terminal and in ``events.jsonl``."""
