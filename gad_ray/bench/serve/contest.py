"""Rounds in which several ways to score the same pairs take turns, so that what drifts meets all of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gad_ray.bench.figures import spread
from gad_ray.bench.serve.load import Load, Request, closed_loop
from gad_ray.bench.serve.servers import Server
from gad_ray.bench.serve.setting import Tell
from gad_ray.bench.serve.shapes import Shape
from gad_ray.errors import GadError


@dataclass(frozen=True, slots=True)
class Scored:
    """One round of one way: its seconds, and every pair's score."""

    seconds: float
    scores: list[float]


Way = Callable[[], Scored]
"""Scores all pairs once."""


def take_turns(ways: Mapping[str, Way], *, rounds: int, tell: Tell) -> list[dict[str, Scored]]:
    """Play rounds; a first one, in which everybody gets warm, does not count.

    Args:
        ways: Name → way.
        rounds: Rounds that count.
        tell: Is told of each of them.
    """
    played: list[dict[str, Scored]] = []
    for number in range(rounds + 1):
        played.append({name: way() for name, way in ways.items()})
        shown = ", ".join(f"{name} {scored.seconds:.1f} s" for name, scored in played[-1].items())
        tell(f"round {number} of {rounds}: {shown}" + ("" if number else " (does not count)"))
    return played[1:]


def saturating(server: Server, shape: Shape, requests: Sequence[Request], *, concurrency: int) -> Way:
    """The way of a server that always has enough to do.

    Args:
        server: The server.
        shape: Of its requests.
        requests: Together every pair once.
        concurrency: Requests under way at once.
    """

    def way() -> Scored:
        load = closed_loop(server.url, requests, concurrency=concurrency)
        return Scored(load.seconds, scores_of(load, shape, where=server.name))

    return way


def scores_of(load: Load, shape: Shape, *, where: str) -> list[float]:
    """Every pair's score, from answers to requests that ask once about each.

    Raises:
        GadError: If a request failed, or has not one score for every pair.
    """
    found: dict[int, float] = {}
    for answer in load.answers:
        told = answer.error or f"{answer.status}: {answer.content[:300].decode(errors='replace')}"
        if answer.status != 200:
            raise GadError(f"a request was not answered with scores, but with {told}", where=where)
        found.update(zip(answer.request.places, shape.scores(answer.content), strict=True))
    return [found[place] for place in sorted(found)]


def speeds(played: Sequence[Mapping[str, Scored]], *, pairs: int, tokens: int) -> dict[str, dict[str, Any]]:
    """What the rounds come to for each way: pairs and tokens a second."""
    figures: dict[str, dict[str, Any]] = {}
    for name in played[0]:
        seconds = [turn[name].seconds for turn in played]
        middle = statistics.median(seconds)
        figures[name] = {
            "seconds": seconds,
            "pairs_per_s": pairs / middle,
            "tokens_per_s": tokens / middle,
        }
    return figures


def shares(played: Sequence[Mapping[str, Scored]], name: str, *, of: str) -> dict[str, float]:
    """How fast a way is as a share of another, round by round."""
    return spread([turn[of].seconds / turn[name].seconds for turn in played])


def score_gap(played: Sequence[Mapping[str, Scored]], name: str, *, of: str) -> float:
    """The largest difference between the scores of two ways, over all rounds."""
    return max(
        abs(mine - theirs)
        for turn in played
        for mine, theirs in zip(turn[name].scores, turn[of].scores, strict=True)
    )
