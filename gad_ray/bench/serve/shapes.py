"""How each kind of server wants to be asked for the scores of pairs, and how it answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

from gad_ray.bench.serve.load import Request
from gad_ray.models.pairs import Pair


class Shape(Protocol):
    """Requests and answers of one kind of server."""

    def request(self, pairs: Sequence[Pair], places: Sequence[int]) -> Request:
        """The request for the scores of some pairs.

        Args:
            pairs: All pairs.
            places: Which of them.
        """
        ...

    def scores(self, content: bytes) -> list[float]:
        """The scores in an answer."""
        ...


class OwnShape:
    """``POST /v1/score``: every pair with its own prompt."""

    def request(self, pairs: Sequence[Pair], places: Sequence[int]) -> Request:
        """As :class:`Shape` says."""
        queries = [pairs[i].messages[0].content for i in places]
        documents = [pairs[i].response for i in places]
        return json_request("/v1/score", {"queries": queries, "documents": documents}, places)

    def scores(self, content: bytes) -> list[float]:
        """As :class:`Shape` says."""
        return [float(item["score"]) for item in json.loads(content)["data"]]


def requests_for(shape: Shape, pairs: Sequence[Pair], *, each: int) -> list[Request]:
    """Requests that together ask once about every pair.

    Args:
        shape: Of the server.
        pairs: The pairs.
        each: Pairs of one request.
    """
    return [
        shape.request(pairs, range(start, min(start + each, len(pairs))))
        for start in range(0, len(pairs), each)
    ]


def json_request(path: str, body: dict[str, Any], places: Sequence[int]) -> Request:
    """A request with a body in JSON, about the pairs at some places."""
    return Request(path, json.dumps(body).encode(), tuple(places))
