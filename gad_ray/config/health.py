"""What a run does about its own health."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from gad_ray.strict_model import StrictModel

TEMPERATURE = "critic.loss.temperature.value"
UPDATES_PER_STEP = "critic.updates_per_step"
KL_COEFFICIENT = "policy.kl.coefficient"

ADAPTIVE_BOUNDS = {
    TEMPERATURE: "temperature",
    UPDATES_PER_STEP: "updates_per_step",
    KL_COEFFICIENT: "kl_coefficient",
}
"""Settings that answers may change → names of their bounds under ``health.adaptive``."""


class TemperatureBounds(StrictModel):
    """How far answers may move τ of the critic's loss, where it is a fixed one."""

    lo: float = Field(default=1.0, gt=0.0)
    """Smallest τ."""

    hi: float = Field(default=10.0, gt=0.0)
    """Largest τ."""


class UpdateBounds(StrictModel):
    """How far answers may move the critic's updates per step."""

    lo: int = Field(default=1, ge=1)
    """Fewest updates."""

    hi: int = Field(default=4, ge=1)
    """Most updates. Each is another forward and backward pass over the step's samples."""


class KlBounds(StrictModel):
    """How far answers may move the KL coefficient, where there is one and it does not adapt itself."""

    lo: float = Field(default=1e-4, gt=0.0)
    """Smallest coefficient."""

    hi: float = Field(default=0.2, gt=0.0)
    """Largest coefficient."""


Bounds = TemperatureBounds | UpdateBounds | KlBounds


class AdaptiveAnswers(StrictModel):
    """Health rules may change settings themselves, within bounds, and only for as long as their cause lasts.

    Only what can be changed while a run goes is: τ of the critic's loss, its updates per step, and the KL coefficient. All
    other advice stays advice.
    """

    temperature: TemperatureBounds | None = TemperatureBounds()
    """Bounds of ``critic.loss.temperature.value``; null: answers leave it alone."""

    updates_per_step: UpdateBounds | None = UpdateBounds()
    """Bounds of ``critic.updates_per_step``; null: answers leave it alone."""

    kl_coefficient: KlBounds | None = KlBounds()
    """Bounds of ``policy.kl.coefficient``; null: answers leave it alone. A coefficient of 0 is always left alone: such a
    run has kept no reference."""

    patience_steps: int = Field(default=10, ge=1)
    """Steps that a change is given to work, and no fewer than the rule's window, before a rule that still holds makes
    another."""

    calm_steps: int = Field(default=20, ge=1)
    """Steps in a row for which none of the rules that asked for a change may hold before it is undone."""

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        for name in ADAPTIVE_BOUNDS.values():
            bounds: Bounds | None = getattr(self, name)
            if bounds is not None and bounds.lo > bounds.hi:
                raise ValueError(f"{name}.lo {bounds.lo:g} lies above {name}.hi {bounds.hi:g}: swap them")
        return self


class HealthConfig(StrictModel):
    """Health rules are judged after every step; what begins to hold is shown, logged and counted."""

    on_critical: Literal["continue", "stop", "pause"] = "continue"
    """When a rule of severity critical begins to hold. ``continue``: only say so. ``stop``: save a checkpoint and end
    with exit code 3. ``pause``: save a checkpoint and wait, models loaded, until a file ``resume`` lies in the run's
    directory; SIGINT and SIGTERM end the wait and the run."""

    adaptive: AdaptiveAnswers | None = None
    """Present, also as ``{}``: rules apply their advice themselves within these bounds. Absent: they only give it."""

    language: Literal["en", "zh"] = "en"
    """Language of the findings on the terminal and in ``events.jsonl``."""
