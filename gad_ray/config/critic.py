"""The critic: pooling, discriminator loss, and how it trains."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny, Tag

from gad_ray.config.backend import BackendConfig, LocalBackendSettings
from gad_ray.config.base import SizeChoice, settled
from gad_ray.config.models import GroupConfig, ModelConfig, OptimizerConfig
from gad_ray.core.discriminator import BradleyTerryLoss, DiscriminatorLoss
from gad_ray.core.pooling import MeanPooling, Pooling
from gad_ray.registry import BY_NAME, IMPORTED, imported
from gad_ray.strict_model import StrictModel, Variant


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


class FrozenCriticSettings(Variant):
    """The settings of a critic that scores and does not learn."""


class ExportedCriticSettings(FrozenCriticSettings):
    """A critic that an earlier run exported."""

    name: Literal["exported"] = "exported"
    path: str = Field(min_length=1)
    """Its directory, at the same path on every node."""


class RemoteCriticSettings(FrozenCriticSettings):
    """A critic behind an endpoint such as ``gad-ray serve``; scores of another than it served at first are refused."""

    name: Literal["remote"] = "remote"
    url: str = Field(pattern=r"^https?://")
    """Where the service listens, e.g. ``http://127.0.0.1:8000``."""

    key_env: str = "GAD_RAY_SERVE_KEY"
    """Environment variable with its key, where it wants one; in the critic's actors."""


FrozenCriticConfig = Annotated[
    Annotated[ExportedCriticSettings, Tag("exported")]
    | Annotated[RemoteCriticSettings, Tag("remote")]
    | Annotated[SerializeAsAny[FrozenCriticSettings], imported(FrozenCriticSettings), IMPORTED],
    BY_NAME,
]
"""Which critic that does not learn; one of your own by ``name: module:Class`` (docs/extending/critic.md)."""


class CriticConfig(StrictModel):
    """The discriminator: a backbone with a linear value head."""

    model: ModelConfig
    frozen: FrozenCriticConfig | None = None
    """A critic that scores and does not learn, in place of the value head. What is said here of training then counts for
    nothing; ``model`` is what ``gad-ray compare`` trains its fresh critics from."""

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

    micro_batch_tokens: SizeChoice = "auto"
    """Tokens that one forward pass computes; gradients accumulate over the passes. ``auto``: on a CPU the fewest that it
    computes as fast as more, by measurement, on a GPU as many as it has memory for, up to 16,384."""

    packing: bool = True
    """Put the pairs of a forward pass end to end, none seeing another and a prompt that several share computed once, in
    place of padding each. A backbone that cannot (layers with a window, an attention of its own) is padded."""

    max_tokens: int = Field(default=4096, ge=2)
    """Longest prompt plus response, in the critic's tokens; a longer pair is refused by name."""

    backend: BackendConfig = LocalBackendSettings()
    group: GroupConfig = GroupConfig()

    @property
    def pass_tokens(self) -> int:
        """``micro_batch_tokens``, once it is settled.

        Raises:
            ConfigError: If it is ``auto`` still.
        """
        return settled(self.micro_batch_tokens, key="critic.micro_batch_tokens")
