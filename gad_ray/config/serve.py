"""The critic over HTTP while a run goes."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from gad_ray.config.endpoint import EndpointConfig


class ServeConfig(EndpointConfig):
    """A run's own endpoint: it scores with the critic of the moment, by the path of training; see docs/serving.md."""

    enabled: bool = False
    """Serve the critic over HTTP from the run's beginning to its end."""

    publish_every: int = Field(default=1, ge=1)
    """Steps between two critics that are handed to the endpoint; those of the run's beginning and end always are. A critic
    whose weights are not finite never is."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to listen on, of the cluster's head node; others than loopback need a key, here or in GAD_RAY_SERVE_KEYS."""

    port: int = Field(default=8000, ge=1, le=65535)
    """Port to listen on."""

    cpus_per_replica: float = Field(default=0.25, gt=0.0)
    """Cores that are reserved for a replica, beside those of the run's actors. A fraction will do: it computes when it is
    asked, and when it takes a new critic."""

    threads: int = Field(default=1, ge=1)
    """Threads of a replica; each is taken from the training where cores are few."""

    drain_s: float = Field(default=5.0, gt=0.0, le=3600.0)
    """Longest time that the run's end waits for requests under way."""

    keep_versions: int = Field(default=0, ge=0)
    """Earlier critics that stay in a replica's memory, which is taken from the run's."""

    @model_validator(mode="before")
    @classmethod
    def _takes_batch_tokens(cls, value: Any) -> Any:
        """``batch_tokens`` is the short name of ``batching.max_batch_tokens``."""
        if not isinstance(value, dict) or "batch_tokens" not in value:
            return value
        settings: dict[str, Any] = dict(value)
        tokens = settings.pop("batch_tokens")
        return {**settings, "batching": {**settings.get("batching", {}), "max_batch_tokens": tokens}}

    @property
    def bundles(self) -> list[dict[str, float]]:
        """Resources of each replica; none without an endpoint."""
        each = {"CPU": self.cpus_per_replica, "GPU": self.gpus_per_replica}
        return [each] * self.num_replicas if self.enabled else []
