"""The temperature of the critic's loss: a number, or one that follows the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Self, cast

from pydantic import Field, model_validator

from gad_ray.strict_model import StrictModel, unnamed_means

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveRange:
    """τ = clamp(a + b · mean |d|, lo, hi), with 0 < lo <= hi."""

    a: float
    b: float
    lo: float
    hi: float


class FixedTemperature(StrictModel):
    """A constant temperature τ."""

    name: Literal["fixed"] = "fixed"
    value: float = Field(default=5.0, gt=0.0)
    """τ: the score difference is divided by it before the sigmoid."""

    @property
    def setting(self) -> float:
        """What :func:`temperature_of` takes."""
        return self.value


class AdaptiveTemperature(StrictModel):
    """τ = clamp(a + b · mean |d|, lo, hi) over the batch's score differences d; no gradient flows through it.

    Give a preset, or all of a, b, lo and hi.
    """

    name: Literal["adaptive"] = "adaptive"
    preset: Literal["sharp", "smooth"] | None = None
    """sharp: a 0.3, b 0.7, lo 0.3, hi 2.0; smooth: a 1.0, b 0.6, lo 1.0, hi 7.0."""

    a: float | None = None
    """τ where all differences are 0."""

    b: float | None = Field(default=None, ge=0.0)
    """Rise of τ with the mean size of the differences."""

    lo: float | None = Field(default=None, gt=0.0)
    """Smallest τ."""

    hi: float | None = Field(default=None, gt=0.0)
    """Largest τ."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        given = {"a": self.a, "b": self.b, "lo": self.lo, "hi": self.hi}
        missing = [key for key, value in given.items() if value is None]
        if self.preset is not None and len(missing) < len(given):
            raise ValueError(f"preset = {self.preset!r} sets a, b, lo and hi: give them or the preset")
        if self.preset is None and missing:
            raise ValueError(
                f"{', '.join(missing)} not given: give a preset ('sharp', 'smooth'), or all of a, b, lo and hi"
            )
        if self.lo is not None and self.hi is not None and self.hi < self.lo:
            raise ValueError(f"hi = {self.hi} is below lo = {self.lo}")
        return self

    @property
    def setting(self) -> AdaptiveRange:
        """What :func:`temperature_of` takes: the coefficients, those of the preset where there is one."""
        if self.preset is not None:
            a, b, lo, hi = _PRESETS[self.preset]
        else:
            # That none is missing was seen to when they were validated.
            a, b, lo, hi = cast("tuple[float, float, float, float]", (self.a, self.b, self.lo, self.hi))
        return AdaptiveRange(a=a, b=b, lo=lo, hi=hi)


_PRESETS = {"sharp": (0.3, 0.7, 0.3, 2.0), "smooth": (1.0, 0.6, 1.0, 7.0)}

Temperature = Annotated[
    FixedTemperature | AdaptiveTemperature, Field(discriminator="name"), unnamed_means("fixed")
]
"""What scores are divided by before the sigmoid."""


def temperature_of(
    setting: float | AdaptiveRange, difference: Float[Tensor, " responses"]
) -> float | Float[Tensor, ""]:
    """τ for a batch of score differences, detached: the critic cannot lower its loss by moving τ.

    Args:
        setting: τ itself, or how it follows the differences.
        difference: d of every pair of the whole batch, as the loss sees it.
    """
    if not isinstance(setting, AdaptiveRange):
        return setting
    size = difference.detach().abs().mean()
    return (setting.a + setting.b * size).clamp(setting.lo, setting.hi)
