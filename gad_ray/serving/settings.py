"""How the critic is served: all settings of the Serve application, as the command and a YAML give them."""

from __future__ import annotations

from pydantic import Field

from gad_ray.config.base import StrictModel
from gad_ray.serving.batcher import BatchSettings
from gad_ray.serving.limits import Limits


class ServeSettings(StrictModel):
    """One served critic."""

    critic: str = Field(min_length=1)
    """Directory of a checkpoint or an export, at the same path on every node."""

    name: str = Field(default="critic", min_length=1, max_length=128)
    """What clients call the model."""

    key_file: str | None = None
    """File with one key a line, at the same path on every node; read again when it changes."""

    key_digests: list[str] = Field(default_factory=list[str])
    """SHA-256 (hex) of further keys."""

    limits: Limits = Limits()
    """Bounds of requests and of what may wait."""

    batching: BatchSettings = BatchSettings()
    """How requests are scored together."""

    num_replicas: int = Field(default=1, ge=1)
    """Processes that each hold the critic and share the requests."""

    max_replicas: int | None = Field(default=None, ge=1)
    """Add replicas up to so many while requests wait, and take them away again; a fixed number when left out."""

    cpus_per_replica: float = Field(default=1.0, ge=0.0)
    """Cores that Ray reserves for one replica."""

    gpus_per_replica: float = Field(default=0.0, ge=0.0)
    """GPUs of one replica; it computes on the CPU without."""

    threads: int = Field(default=0, ge=0)
    """Threads of one replica; its share of the cores when 0."""

    drain_s: float = Field(default=30.0, gt=0.0)
    """Longest time for requests under way to end when a replica is stopped."""
