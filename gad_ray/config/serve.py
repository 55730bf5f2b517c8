"""The critic over HTTP while a run goes."""

from __future__ import annotations

from pydantic import Field

from gad_ray.strict_model import StrictModel


class ServeConfig(StrictModel):
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

    name: str = Field(default="critic", min_length=1, max_length=128)
    """What clients call the model."""

    key_file: str | None = None
    """File with one key a line, at the same path on every node; read again when it changes."""

    allowed_hosts: list[str] = Field(default_factory=list[str])
    """Names that requests may be addressed to besides loopback's, as behind a proxy; see docs/serving.md."""

    num_replicas: int = Field(default=1, ge=1)
    """Processes that each hold the critic and share the requests."""

    cpus_per_replica: float = Field(default=0.25, gt=0.0)
    """Cores that are reserved for a replica, beside those of the run's actors. A fraction will do: it computes when it is
    asked, and when it takes a new critic."""

    gpus_per_replica: float = Field(default=0.0, ge=0.0)
    """GPUs of a replica; it computes on the CPU without."""

    threads: int = Field(default=1, ge=1)
    """Threads of a replica; each is taken from the training where cores are few."""

    batch_tokens: int = Field(default=4096, ge=1)
    """Tokens of one forward pass of a replica."""

    drain_s: float = Field(default=5.0, gt=0.0, le=3600.0)
    """Longest time that the run's end waits for requests under way."""

    @property
    def bundles(self) -> list[dict[str, float]]:
        """Resources of each replica; none without an endpoint."""
        each = {"CPU": self.cpus_per_replica, "GPU": self.gpus_per_replica}
        return [each] * self.num_replicas if self.enabled else []
