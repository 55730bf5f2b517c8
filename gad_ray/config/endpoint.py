"""How a critic is served over HTTP: what a run's own endpoint, ``gad-ray serve`` and a Serve YAML have in common.

Each setting stands here once, with its default; a run and the Serve application add what only they have.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gad_ray.strict_model import StrictModel

HostName = Annotated[str, Field(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)$", max_length=255)]
"""Without a port."""

KIB = 1024


class Limits(StrictModel):
    """Bounds of the endpoint. What goes beyond is refused with a 4xx that names the bound."""

    max_body_bytes: int = Field(default=4 * KIB * KIB, ge=KIB)
    """Longest body, as sent and after decompression."""

    max_pairs: int = Field(default=1024, ge=1)
    """Most (prompt, response) pairs of one request."""

    max_text_characters: int = Field(default=262_144, ge=1)
    """Longest single text, before it is tokenised."""

    max_messages: int = Field(default=256, ge=1)
    """Most messages of one conversation."""

    max_request_tokens: int = Field(default=262_144, ge=1)
    """Most tokens of one request, every pair counted with its prompt."""

    max_nesting: int = Field(default=8, ge=4)
    """Deepest JSON; the deepest request that means anything has four levels."""

    max_queued_tokens: int = Field(default=524_288, ge=1)
    """Tokens that may wait for the critic; a request that finds no room gets 429 at once."""

    max_queued_requests: int = Field(default=512, ge=1)
    """Requests that may wait for the critic."""

    request_timeout_s: float = Field(default=60.0, gt=0.0, le=3600.0)
    """Time from a request's arrival to its answer; what cannot make it gets 408, or 429 where that is foreseen."""

    body_timeout_s: float = Field(default=15.0, gt=0.0, le=3600.0)
    """Time in which a client must have sent its whole request."""


class BatchSettings(StrictModel):
    """How rows are put together."""

    max_batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens of one forward pass, with padding where there is any; a longer row goes alone. 1024 on a CPU and 4096 on
    a GPU when left out."""

    max_wait_s: float = Field(default=0.005, ge=0.0, le=10.0)
    """Longest wait for company before an idle critic begins; adapted to the traffic."""

    cache_tokens: int = Field(default=0, ge=0)
    """Scored tokens whose scores are kept for equal text; 0: no cache."""


class ReplicaConfig(StrictModel):
    """How a replica answers, whatever critic it has."""

    name: str = Field(default="critic", min_length=1, max_length=128)
    """What clients call the model."""

    key_file: str | None = None
    """File with one key a line, at the same path on every node; read again when it changes."""

    key_digests: list[str] = Field(default_factory=list[str])
    """SHA-256 (hex) of further keys."""

    allowed_hosts: list[HostName] = Field(default_factory=list[str])
    """Names that requests may be addressed to besides loopback's, as behind a proxy (Host and Origin headers). While it is
    empty, requests with a key may be addressed to any name, and those to a service without keys to loopback's alone."""

    limits: Limits = Limits()
    """Bounds of requests and of what may wait."""

    batching: BatchSettings = BatchSettings()
    """How requests are scored together."""

    keep_versions: int = Field(default=1, ge=0)
    """Earlier critics that stay in memory, to be served again at once by their fingerprint."""

    threads: int = Field(default=0, ge=0)
    """Threads of one replica; its share of the cores when 0."""

    gpus_per_replica: float = Field(default=0.0, ge=0.0)
    """GPUs of one replica; it computes on the CPU without."""


class EndpointConfig(ReplicaConfig):
    """One served critic, with the replicas that serve it."""

    num_replicas: int = Field(default=1, ge=1)
    """Processes that each hold the critic and share the requests."""

    cpus_per_replica: float = Field(default=1.0, ge=0.0)
    """Cores that Ray reserves for one replica."""

    drain_s: float = Field(default=30.0, gt=0.0, le=3600.0)
    """Longest time for requests under way to end when a replica is stopped."""
