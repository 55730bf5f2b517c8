"""Times to an answer while requests come at random, at a share of what the endpoint can do at most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from gad_ray.bench.serve.load import Answer, Load, Request, arrivals, closed_loop, open_loop, percentiles
from gad_ray.bench.serve.servers import Server, endpoint
from gad_ray.bench.serve.setting import Setting
from gad_ray.bench.serve.shapes import OwnShape, requests_for
from gad_ray.bench.serve.study import Part
from gad_ray.bench.serve.tables import NONE, Table
from gad_ray.bench.serve.tables import times as shown_times
from gad_ray.bench.serve.texts import draw_pairs
from gad_ray.bench.serve.throughput import SHORTEST
from gad_ray.errors import GadError

SHARE = 0.7
_ALONE = 20


def measure_latency(setting: Setting) -> dict[str, Any]:
    """Requests of one pair each: at random times at 70 % of saturation, and alone on an idle endpoint.

    Raises:
        GadError: If the endpoint fails.
    """
    command = endpoint(critic=setting.critic, threads=setting.threads, batch_tokens=setting.batch_tokens)
    with command.running(setting.out / "latency-endpoint.log") as server:
        return time_answers(server, setting)


def time_answers(server: Server, setting: Setting) -> dict[str, Any]:
    """The figures of an endpoint that runs."""
    most = saturation(server, setting)
    alone = closed_loop(server.url, fresh_requests(_ALONE, setting, salt=2), concurrency=1)
    load = offered(server, setting, per_second=SHARE * most, salt=3)
    setting.tell(f"{len(load.answers)} requests at {SHARE * most:.2f} a second")
    return {
        "saturation_per_s": most,
        "share": SHARE,
        "per_s": SHARE * most,
        "requests": len(load.answers),
        "statuses": statuses(load.answers),
        "latency_ms": percentiles(times(load.answers)),
        "alone_ms": percentiles(times(alone.answers)),
    }


def saturation(server: Server, setting: Setting) -> float:
    """Requests of one pair that an endpoint answers in a second when it always has enough to do.

    Raises:
        GadError: If it answers none.
    """
    requests = fresh_requests(setting.pairs, setting, salt=0)
    # Some before, for everything to be warm.
    closed_loop(server.url, requests[: setting.concurrency], concurrency=setting.concurrency)
    load = closed_loop(
        server.url, fresh_requests(setting.pairs, setting, salt=1), concurrency=setting.concurrency
    )
    if not load.pairs:
        raise GadError("no request was answered with scores", where=server.name)
    setting.tell(f"saturation: {load.pairs / load.seconds:.2f} requests of one pair a second")
    return load.pairs / load.seconds


def offered(server: Server, setting: Setting, *, per_second: float, salt: int) -> Load:
    """Send requests at random times for as long as the setting says."""
    due = arrivals(per_second, seconds=setting.seconds, seed=setting.seed + salt)
    return open_loop(server.url, fresh_requests(len(due), setting, salt=salt), due)


def fresh_requests(count: int, setting: Setting, *, salt: int) -> list[Request]:
    """Requests of one pair that no other salt has."""
    seed = 1000 * (setting.seed + 1) + salt
    pairs = draw_pairs(count, seed=seed, shortest=SHORTEST, longest=setting.longest)
    return requests_for(OwnShape(), pairs, each=1)


def statuses(answers: list[Answer]) -> dict[str, int]:
    """Answers by status, those that never came under ``none``."""
    found = Counter("none" if answer.status is None else str(answer.status) for answer in answers)
    return dict(sorted(found.items()))


def times(answers: list[Answer]) -> list[float]:
    """Seconds to the answers with scores."""
    return [answer.seconds for answer in answers if answer.status == 200]


def _table(figures: Mapping[str, Any]) -> Table:
    head = ["requests", "a second", "answered", "p50 ms", "p90 ms", "p99 ms", "longest ms"]
    answered, count = figures["statuses"].get("200", 0), figures["requests"]
    return [
        head,
        ["one after the other, idle", NONE, NONE, *shown_times(figures["alone_ms"])],
        [
            "at random",
            f"{figures['per_s']:.2f}",
            f"{answered} of {count}",
            *shown_times(figures["latency_ms"]),
        ],
    ]


def _notes(figures: Mapping[str, Any]) -> list[str]:
    return [f"Saturation: {figures['saturation_per_s']:.2f} requests a second."]


LATENCY = Part(
    measure=measure_latency,
    settings=("pairs", "longest", "concurrency", "seconds"),
    title="latency at 70 % of saturation",
    table=_table,
    notes=_notes,
)
