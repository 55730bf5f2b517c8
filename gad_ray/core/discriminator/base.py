"""What the critic's losses share: their settings, what they are computed of, the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gad_ray.core.discriminator.score_reg import ScoreReg
from gad_ray.core.discriminator.temperature import (
    AdaptiveRange,
    AdaptiveTemperature,
    FixedTemperature,
    Temperature,
)
from gad_ray.registry import Registry
from gad_ray.strict_model import Variant

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from gad_ray.core.discriminator.stats import DiscriminatorStats


class DiscriminatorSettings(Variant):
    """What the settings of all losses of the critic share."""

    temperature: Temperature = FixedTemperature()
    score_reg: ScoreReg = ScoreReg()

    @property
    def needs_whole_batch(self) -> bool:
        """Whether what one score adds to the loss depends on the scores of other prompts."""
        return isinstance(self.temperature, AdaptiveTemperature)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairScores:
    """Scores of both sides, as a loss of the critic is computed of them.

    Attributes:
        teacher: Raw float32 scores of the teacher's responses, one a prompt, with gradient.
        student: The same of the student's responses.
        group: For each response, the index of its prompt in ``teacher``.
        temperature: τ > 0, or how it follows the scores of the whole batch.
        num_prompts: Prompts of the batch over all ranks that these are a part of: the denominator of every mean over
            prompts.
        num_responses: The same of its responses.
    """

    teacher: Float[Tensor, " prompts"]
    student: Float[Tensor, " responses"]
    group: Int[Tensor, " responses"]
    temperature: float | AdaptiveRange
    num_prompts: int
    num_responses: int

    def shared(self, settings: DiscriminatorSettings) -> dict[str, Any]:
        """What every loss takes, by name."""
        return {
            "group": self.group,
            "temperature": self.temperature,
            "reg_threshold": settings.score_reg.threshold,
            "reg_weight": settings.score_reg.weight,
            "num_prompts": self.num_prompts,
            "num_responses": self.num_responses,
        }


Loss = Callable[[PairScores, Any], "tuple[Tensor, DiscriminatorStats]"]

DISCRIMINATORS: Registry[DiscriminatorSettings, Loss] = Registry("loss of the critic")
"""Settings → (scores, settings) → (these scores' share of the loss, its figures)."""
