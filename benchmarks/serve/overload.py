"""Five times what the endpoint can do: what is refused and how, what the accepted wait, and what memory it takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

from benchmarks.serve.swaps import counts, three
from gad_ray.bench.serve.latency import offered, saturation, statuses, times
from gad_ray.bench.serve.load import Answer, percentiles
from gad_ray.bench.serve.servers import Server, endpoint
from gad_ray.bench.serve.setting import Setting
from gad_ray.bench.serve.study import Part
from gad_ray.bench.serve.tables import Table, number
from gad_ray.bench.serve.texts import draw_pairs
from gad_ray.bench.serve.throughput import SHORTEST
from gad_ray.client.retry import ClientSettings, EndpointError
from gad_ray.client.score_client import ScoreClient
from gad_ray.config.endpoint import Limits
from gad_ray.models.pairs import Pair

TIMES = 5.0
_POLITE_CLIENTS = 4
_LOOK_EVERY_S = 0.5
_MIB = 2**20


def measure_overload(setting: Setting) -> dict[str, Any]:
    """Requests of one pair at random times at five times saturation, with polite clients among them.

    Raises:
        GadError: If the endpoint fails.
    """
    command = endpoint(critic=setting.critic, threads=setting.threads, batch_tokens=setting.batch_tokens)
    with command.running(setting.out / "overload-endpoint.log") as server:
        return overload(server, setting)


def overload(server: Server, setting: Setting) -> dict[str, Any]:
    """The figures of an endpoint that runs."""
    most = saturation(server, setting)
    pairs = draw_pairs(
        50 * _POLITE_CLIENTS, seed=setting.seed + 77, shortest=SHORTEST, longest=setting.longest
    )
    with Memory({"replicas": server.replicas(), "proxies": server.proxies()}) as memory:
        with PoliteClients(server.url, pairs, count=_POLITE_CLIENTS) as polite:
            load = offered(server, setting, per_second=TIMES * most, salt=4)
        after = saturation(server, setting)
    accepted = times(load.answers)
    return {
        "saturation_per_s": most,
        "times": TIMES,
        "per_s": TIMES * most,
        "requests": len(load.answers),
        "statuses": statuses(load.answers),
        "answered_share_of_saturation": len(accepted) / load.seconds / most,
        "accepted_ms": percentiles(accepted),
        "refused_ms": percentiles([a.seconds for a in load.answers if a.status == 429]),
        "bound_ms": 1000.0 * Limits().request_timeout_s,
        "retry_after": retry_after(load.answers),
        "polite": polite.figures(),
        "memory_mib": memory.figures(),
        "saturation_after_per_s": after,
    }


def retry_after(answers: Sequence[Answer]) -> dict[str, Any]:
    """Whether every refusal says when to come again, and the shortest and longest time it names."""
    refused = [answer.retry_after for answer in answers if answer.status == 429]
    named = [int(value) for value in refused if value is not None and value.isdecimal() and int(value) > 0]
    return {
        "refused": len(refused),
        "with_retry_after": len(named),
        "shortest_s": min(named, default=None),
        "longest_s": max(named, default=None),
    }


class PoliteClients:
    """Clients with retries, each in a thread of its own, that ask for one pair after the other while in the block.

    Args:
        url: The endpoint.
        pairs: What they ask about, in turn.
        count: How many there are.
    """

    def __init__(self, url: str, pairs: Sequence[Pair], *, count: int) -> None:
        self._url = url
        self._pairs = [pairs[number::count] for number in range(count)]
        self._pool = ThreadPoolExecutor(max_workers=count)
        self._stop = threading.Event()
        self._futures: list[Future[tuple[int, int]]] = []
        self.attempts = AttemptLog()

    def __enter__(self) -> Self:
        self._futures = [self._pool.submit(self._ask, own) for own in self._pairs]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True)
        self.attempts.close_network()

    def figures(self) -> dict[str, Any]:
        """What they saw."""
        done = [future.result() for future in self._futures]
        return {
            "answered": sum(answered for answered, _ in done),
            "given_up": sum(given_up for _, given_up in done),
            **self.attempts.figures(),
        }

    def _ask(self, pairs: Sequence[Pair]) -> tuple[int, int]:
        answered = given_up = 0
        settings = ClientSettings(max_attempts=30, timeout_s=300.0)
        with ScoreClient(self._url, settings=settings, transport=self.attempts) as client:
            for pair in pairs:
                if self._stop.is_set():
                    break
                try:
                    client.score_pairs([pair])
                    answered += 1
                except EndpointError:
                    given_up += 1
        return answered, given_up


class AttemptLog(httpx.BaseTransport):
    """The network, with a note of each attempt: did it wait as long as the refusal before it had asked?"""

    def __init__(
        self, network: httpx.BaseTransport | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._network = network or httpx.HTTPTransport()
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: dict[str, tuple[float, float]] = {}
        self._num_attempts = self._num_repeated = self._num_early = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """As ``httpx.BaseTransport`` says."""
        name = request.headers["x-request-id"]
        with self._lock:
            self._num_attempts += 1
            refused, wanted = self._asked.pop(name, (0.0, 0.0))
            if wanted:
                self._num_repeated += 1
                self._num_early += self._clock() - refused < wanted
        response = self._network.handle_request(request)
        asked = response.headers.get("retry-after", "")
        if response.status_code == 429 and asked.isdecimal():
            with self._lock:
                self._asked[name] = (self._clock(), float(asked))
        return response

    def close_network(self) -> None:
        """Close its connections. Several clients share them: the end of one must not close them."""
        self._network.close()

    def figures(self) -> dict[str, Any]:
        """All attempts, those that came after a refusal with Retry-After, and of these the ones that came too early."""
        return {
            "attempts": self._num_attempts,
            "repeated_after_refusal": self._num_repeated,
            "repeated_too_early": self._num_early,
        }


class Memory:
    """Watches the resident memory of processes while in the block.

    Args:
        groups: Name → processes, whose memory is added up.
    """

    def __init__(self, groups: dict[str, list[psutil.Process]]) -> None:
        self._groups = groups
        self._seen: dict[str, list[int]] = {name: [] for name in groups}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def figures(self) -> dict[str, dict[str, float]]:
        """Before, at the most, and after, in MiB."""
        return {
            name: {"before": seen[0], "peak": max(seen), "after": seen[-1]}
            for name, found in self._seen.items()
            if (seen := [round(value / _MIB, 1) for value in found])
        }

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            self._look()

    def _look(self) -> None:
        for name, processes in self._groups.items():
            self._seen[name].append(sum(_rss(process) for process in processes))


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _table(figures: Mapping[str, Any]) -> Table:
    polite, retry = figures["polite"], figures["retry_after"]
    rows = [
        ["what", "figure"],
        ["requests", f"{figures['requests']} at {figures['per_s']:.1f} a second"],
        ["statuses", counts(figures["statuses"])],
        ["answered, as a share of saturation", f"{figures['answered_share_of_saturation']:.2f}"],
        ["accepted: p50, p99, longest ms", three(figures["accepted_ms"])],
        ["bound: the request's time, ms", number(figures["bound_ms"])],
        ["refused: p50, p99, longest ms", three(figures["refused_ms"])],
        ["refusals with Retry-After", f"{retry['with_retry_after']} of {retry['refused']}"],
        ["clients with retries: answered, given up", f"{polite['answered']}, {polite['given_up']}"],
        ["their repetitions that came too early", _early(polite)],
        [
            "saturation after, requests/s",
            f"{figures['saturation_after_per_s']:.2f} (before {figures['saturation_per_s']:.2f})",
        ],
    ]
    for name, seen in figures["memory_mib"].items():
        told = f"{seen['before']:.0f}, {seen['peak']:.0f}, {seen['after']:.0f}"
        rows.append([f"memory of {name}: before, peak, after, MiB", told])
    return rows


def _early(polite: Mapping[str, Any]) -> str:
    return f"{polite['repeated_too_early']} of {polite['repeated_after_refusal']}"


def _notes(figures: Mapping[str, Any]) -> list[str]:
    retry = figures["retry_after"]
    lines = [f"Saturation: {figures['saturation_per_s']:.2f} requests a second."]
    if retry["with_retry_after"]:
        lines.append(f"Retry-After named {retry['shortest_s']} to {retry['longest_s']} s.")
    return lines


OVERLOAD = Part(
    measure=measure_overload,
    settings=("pairs", "longest", "concurrency", "seconds"),
    title="five times too much",
    table=_table,
    notes=_notes,
)
