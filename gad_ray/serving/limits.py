"""How much one request may bring, and how much may wait."""

from __future__ import annotations

from pydantic import Field

from gad_ray.strict_model import StrictModel

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
