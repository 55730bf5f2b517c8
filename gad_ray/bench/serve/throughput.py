"""How much of a bare forward's speed is left behind HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from gad_ray.bench.serve.bare import BareForward
from gad_ray.bench.serve.contest import Scored, Way, saturating, score_gap, shares, speeds, take_turns
from gad_ray.bench.serve.servers import Server, endpoint
from gad_ray.bench.serve.setting import Setting
from gad_ray.bench.serve.shapes import OwnShape, Shape, requests_for
from gad_ray.bench.serve.study import Part
from gad_ray.bench.serve.tables import NONE, Table, share
from gad_ray.bench.serve.texts import draw_pairs
from gad_ray.models.pairs import Pair

BARE = "bare forward"
_AS_SERVED = f"{BARE}, as a replica makes it"
SHORTEST = 4


def measure_throughput(setting: Setting) -> dict[str, Any]:
    """The endpoint at saturation beside a bare forward, in turns over the same pairs.

    Raises:
        GadError: If one of them fails.
    """
    pairs = draw_pairs(setting.pairs, seed=setting.seed, shortest=SHORTEST, longest=setting.longest)
    command = endpoint(critic=setting.critic, threads=setting.threads, batch_tokens=setting.batch_tokens)
    with (
        _bare(setting, pairs) as bare,
        command.running(setting.out / "throughput-endpoint.log") as server,
    ):
        tokenising: list[float] = []

        def score_bare(*, as_served: bool) -> Scored:
            found = bare.round(as_served=as_served)
            tokenising.append(float(found["tokenising_s"]))
            return Scored(float(found["seconds"]), found["scores"])

        ways: dict[str, Way] = {
            BARE: partial(score_bare, as_served=False),
            _AS_SERVED: partial(score_bare, as_served=True),
        }
        ways |= ways_of(server, OwnShape(), pairs, setting)
        played = take_turns(ways, rounds=setting.rounds, tell=setting.tell)
    figures = speeds(played, pairs=len(pairs), tokens=bare.tokens)
    for name in ways:
        if name != BARE:
            figures[name]["share"] = shares(played, name, of=BARE)
            figures[name]["score_gap"] = score_gap(played, name, of=BARE)
    return {
        "pairs": len(pairs),
        "tokens": bare.tokens,
        "bare_tokenising_s": sorted(tokenising)[len(tokenising) // 2],
        "ways": figures,
    }


def _bare(setting: Setting, pairs: Sequence[Pair]) -> Any:
    return BareForward.running(
        setting.critic,
        pairs,
        threads=setting.threads,
        batch_tokens=setting.batch_tokens,
        out=setting.out,
    )


def ways_of(server: Server, shape: Shape, pairs: Sequence[Pair], setting: Setting) -> dict[str, Way]:
    """Large requests, and one for every pair, with as many pairs under way."""
    ways: dict[str, Way] = {}
    for each in (setting.each, 1):
        name = f"{each} pairs a request" if each > 1 else "1 pair a request"
        requests = requests_for(shape, pairs, each=each)
        ways[name] = saturating(server, shape, requests, concurrency=max(1, setting.concurrency // each))
    return ways


def _table(figures: Mapping[str, Any]) -> Table:
    rows = [["way", "pairs/s", "tokens/s", "share of bare forward", "largest score difference"]]
    for name, way in figures["ways"].items():
        rows.append(
            [
                name,
                f"{way['pairs_per_s']:.2f}",
                f"{way['tokens_per_s']:.0f}",
                share(way["share"]) if "share" in way else NONE,
                f"{way['score_gap']:.1e}" if "score_gap" in way else NONE,
            ]
        )
    return rows


def _notes(figures: Mapping[str, Any]) -> list[str]:
    mean = figures["tokens"] / figures["pairs"]
    return [
        f"{figures['pairs']} pairs with {figures['tokens']} tokens a round, {mean:.0f} a pair on average.",
        f"The bare forward's tokenising took {figures['bare_tokenising_s']:.2f} s a round.",
    ]


THROUGHPUT = Part(
    measure=measure_throughput,
    settings=("pairs", "longest", "each", "concurrency", "rounds"),
    title="throughput at saturation",
    table=_table,
    notes=_notes,
)
