"""The critic: pooling, discriminator loss, and how it trains."""

from __future__ import annotations

from typing import Annotated, Literal, Self, cast

from pydantic import Field, model_validator

from gad_ray.config.models import GroupConfig, ModelConfig, OptimizerConfig
from gad_ray.strict_model import StrictModel, unnamed_means


class MeanPooling(StrictModel):
    """Mean of the per-token values over the response."""

    name: Literal["mean"] = "mean"


class LastPooling(StrictModel):
    """Value of the response's last token."""

    name: Literal["last"] = "last"


class BlendPooling(StrictModel):
    """(1 − α) · mean + α · last, with α rising linearly from 0 to 1 over the critic's optimiser steps."""

    name: Literal["blend"] = "blend"
    blend_start: int = Field(ge=0)
    """Optimiser steps of the critic up to which α is 0."""

    blend_end: int = Field(ge=0)
    """Optimiser steps of the critic from which on α is 1."""

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> Self:
        if self.blend_end < self.blend_start:
            raise ValueError(
                f"blend_end = {self.blend_end} comes before blend_start = {self.blend_start}: let it end later"
            )
        return self


class MixPooling(StrictModel):
    """w_raw · s + w_norm · s / length, s being the value of the response's last token."""

    name: Literal["mix"] = "mix"
    w_raw: float = Field(default=0.7, ge=0.0)
    """Weight of the value as it is."""

    w_norm: float = Field(default=0.3, ge=0.0)
    """Weight of the value divided by the number of scored tokens."""

    @model_validator(mode="after")
    def _something_is_scored(self) -> Self:
        if self.w_raw == 0.0 and self.w_norm == 0.0:
            raise ValueError("w_raw and w_norm are both 0: every score would be 0")
        return self


Pooling = Annotated[
    MeanPooling | LastPooling | BlendPooling | MixPooling, Field(discriminator="name"), unnamed_means("mean")
]
"""How the values of a response's tokens become one score."""


class FixedTemperature(StrictModel):
    """A constant temperature τ."""

    name: Literal["fixed"] = "fixed"
    value: float = Field(default=5.0, gt=0.0)
    """τ: the score difference is divided by it before the sigmoid."""


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
    def coefficients(self) -> tuple[float, float, float, float]:
        """a, b, lo and hi, those of the preset where there is one."""
        if self.preset is not None:
            return _PRESETS[self.preset]
        # That none is missing was seen to when they were validated.
        return cast("tuple[float, float, float, float]", (self.a, self.b, self.lo, self.hi))


_PRESETS = {"sharp": (0.3, 0.7, 0.3, 2.0), "smooth": (1.0, 0.6, 1.0, 7.0)}

Temperature = Annotated[
    FixedTemperature | AdaptiveTemperature, Field(discriminator="name"), unnamed_means("fixed")
]
"""What scores are divided by before the sigmoid."""


class ScoreReg(StrictModel):
    """Penalty w · mean relu(|s| − c)² on raw scores of both sides."""

    threshold: float = Field(default=3.0, ge=0.0)
    """c: scores up to this size cost nothing."""

    weight: float = Field(default=0.01, ge=0.0)
    """w: weight of the penalty; 0 turns it off."""


class BradleyTerryLoss(StrictModel):
    """softplus(−(d − margin)/τ) on the difference d of teacher's and student's score."""

    name: Literal["bradley_terry"] = "bradley_terry"
    temperature: Temperature = FixedTemperature()
    margin: float = 0.0
    """Difference that the teacher's score should exceed the student's by."""

    score_reg: ScoreReg = ScoreReg()
    batch_norm: bool = False
    """Normalise teacher and student scores by the mean and standard deviation over all pairs of the batch, a
    teacher's score counting once for each response to its prompt."""

    @property
    def needs_whole_batch(self) -> bool:
        """Whether a pair's loss depends on the other pairs' scores."""
        return self.batch_norm or isinstance(self.temperature, AdaptiveTemperature)


class CrossEntropyLoss(StrictModel):
    """−log σ(s_T/τ) over the teacher's responses − log(1 − σ(s_S/τ)) over the student's: each judged alone."""

    name: Literal["cross_entropy"] = "cross_entropy"
    temperature: Temperature = FixedTemperature()
    score_reg: ScoreReg = ScoreReg()

    @property
    def needs_whole_batch(self) -> bool:
        """Whether a response's loss depends on the other responses' scores."""
        return isinstance(self.temperature, AdaptiveTemperature)


DiscriminatorLoss = Annotated[
    BradleyTerryLoss | CrossEntropyLoss, Field(discriminator="name"), unnamed_means("bradley_terry")
]
"""What the critic minimises."""


class ReplayConfig(StrictModel):
    """A bounded buffer of past responses, some of which join each step's fresh ones in the critic's batch."""

    size: int = Field(default=4096, ge=1)
    """Responses kept; the oldest make room."""

    ratio: float = Field(default=0.5, gt=0.0, lt=1.0)
    """Share of replayed responses in the critic's batch, once the buffer holds enough of them."""

    max_age: int | None = Field(default=None, ge=1)
    """Steps after which a response is no longer replayed; absent: any age."""

    def num_replayed(self, num_fresh: int) -> int:
        """Replayed responses that make up the share ``ratio`` of a batch with so many fresh ones."""
        return round(num_fresh * self.ratio / (1.0 - self.ratio))


class CriticConfig(StrictModel):
    """The discriminator: a backbone with a linear value head."""

    model: ModelConfig
    pooling: Pooling = MeanPooling()
    loss: DiscriminatorLoss = BradleyTerryLoss()
    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-6)
    head_lr: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Learning rate of the new value head; absent: the optimiser's."""

    updates_per_step: int = Field(default=1, ge=1)
    """Optimiser steps on each step's fresh samples."""

    truncated: Literal["keep", "exclude"] = "keep"
    """Whether the critic learns from responses that were cut at the token limit. They are scored either way."""

    replay: ReplayConfig | None = None
    """Past responses in the critic's batch; absent: fresh ones alone."""

    micro_batch_tokens: int = Field(default=16384, ge=1)
    """Tokens, padding included, in one forward pass; gradients accumulate over the passes."""

    packing: bool = False
    """Put the pairs of a micro-batch end to end in one row, none seeing another, in place of padding each. The
    mask that keeps them apart grows with the square of the row, and every layer keeps it: micro_batch_tokens
    should be a few thousand."""

    max_tokens: int = Field(default=4096, ge=2)
    """Longest prompt plus response, in the critic's tokens; a longer pair is refused by name."""

    group: GroupConfig = GroupConfig()
