"""All settings of the Serve application, as the command and a YAML give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from gad_ray.config.endpoint import EndpointConfig, ReplicaConfig
from gad_ray.errors import ConfigError
from gad_ray.strict_model import StrictModel

AdapterName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}$")]


class ReplicaSettings(ReplicaConfig):
    """What a replica is started with."""

    follow_every_s: float = Field(default=2.0, gt=0.0)
    """How often a run that is followed is looked at for a new critic."""

    adapters: dict[AdapterName, str] = Field(default_factory=dict[str, str])
    """Further models: what clients call each, and the directory of its adapter, at the same path on every node."""

    backbone: str | None = Field(default=None, min_length=1)
    """Model or directory that the adapters were trained on; the critic's own backbone when left out."""

    max_adapters: int = Field(default=8, ge=1)
    """Adapters in memory at once; the one that was not asked for longest makes room."""

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if self.name in self.adapters:
            raise ValueError(f"{self.name!r} is the critic's name; give the adapter another")
        return self


class ServedSource(StrictModel):
    """What is served. Serve hands it to running replicas when it changes, as ``user_config``: a hot swap."""

    critic: str | None = Field(default=None, min_length=1)
    """Directory of a checkpoint or an export, at the same path on every node; or the fingerprint, or its beginning,
    of a critic that the replicas still have in memory."""

    follow: str | None = Field(default=None, min_length=1)
    """Directory of a run whose newest good critic is served, always."""

    channel: str | None = Field(default=None, min_length=1)
    """Name under which a run of this cluster publishes its critics. The run sets it itself, by ``serve.enabled``."""

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if sum(source is not None for source in (self.critic, self.follow, self.channel)) != 1:
            raise ValueError("give either critic or follow")
        return self


class ScalingSettings(StrictModel):
    """When replicas are added and taken away, where ``max_replicas`` allows it."""

    target_wait_s: float = Field(default=5.0, gt=0.0)
    """Seconds of work that may wait for each replica; more of it wants another one."""

    look_back_s: float = Field(default=20.0, gt=10.0)
    """Time over which waiting work and use are averaged; replicas tell Ray Serve every ten seconds."""

    up_after_s: float = Field(default=10.0, ge=0.0)
    """How long another replica must be wanted until it is started."""

    down_after_s: float = Field(default=300.0, ge=0.0)
    """How long one must be wanted less until it is taken away."""


class ServeSettings(EndpointConfig, ReplicaSettings, ServedSource):
    """One served critic, with the replicas that serve it."""

    max_replicas: int | None = Field(default=None, ge=1)
    """Add replicas up to so many while work waits, and take them away again; a fixed number when left out."""

    scaling: ScalingSettings = ScalingSettings()
    """When that is done."""

    @model_validator(mode="after")
    def _check_replicas(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.num_replicas:
            raise ValueError(
                f"max_replicas is {self.max_replicas}, and num_replicas, the fewest, is {self.num_replicas}"
            )
        return self

    @property
    def most_replicas(self) -> int:
        """Replicas that there may be at once."""
        return self.max_replicas or self.num_replicas

    def for_replica(self) -> dict[str, Any]:
        """The part that replicas are started with."""
        return self.model_dump(mode="json", include=set(ReplicaSettings.model_fields))

    def source(self) -> dict[str, Any]:
        """The part that may change while they run."""
        return self.model_dump(mode="json", include=set(ServedSource.model_fields), exclude_none=True)


def settings_from(values: Mapping[str, Any]) -> ServeSettings:
    """Settings from a mapping.

    Raises:
        ConfigError: If one is unknown or out of its bounds.
    """
    try:
        return ServeSettings.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        named = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{named}: {first['msg']}" if named else first["msg"],
            where="settings of the service",
            hint="see docs/serving.md for what there is",
        ) from None
