"""Load while new critics come every few seconds and replicas are killed: is every answer there, once, and right?"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch

from benchmarks.serve.checker import Checker
from gad_ray.bench.serve import tables
from gad_ray.bench.serve.load import Answer, percentiles, plain_answer
from gad_ray.bench.serve.servers import Server, endpoint
from gad_ray.bench.serve.setting import Setting
from gad_ray.bench.serve.shapes import OwnShape
from gad_ray.bench.serve.study import Part
from gad_ray.bench.serve.texts import draw_pairs
from gad_ray.client.retry import EndpointError
from gad_ray.client.score_client import ScoreClient
from gad_ray.critics.store import open_value_head
from gad_ray.errors import GadError
from gad_ray.models.critic_export import export_critic
from gad_ray.models.pairs import Pair

VERSIONS = 4
REPLICAS = 2
_PAIRS, _LONGEST = 64, 48
_MOST_PAIRS = 4
_POLITE, _PLAIN = 6, 2
_LOOK_EVERY_S = 0.25
_TIMEOUT_S = 120.0

_NOISE = 0.01
_SCORED_AT_ONCE = 2048


def measure_swaps(setting: Setting) -> dict[str, Any]:
    """A run is followed whose critic is replaced again and again, by two replicas that are killed in turn.

    Raises:
        GadError: If the endpoint does not come up, or two versions cannot be told apart by their scores.
    """
    pairs = draw_pairs(_PAIRS, seed=setting.seed + 9, shortest=2, longest=min(_LONGEST, setting.longest))
    setting.tell(f"{VERSIONS} versions and their scores")
    versions = make_versions(setting.critic, setting.out / "versions", count=VERSIONS)
    offline = [offline_scores(path, pairs) for path in versions]
    run = FollowedRun(setting.out / "followed", versions)
    run.publish(0)
    command = endpoint(
        follow=run.root,
        replicas=REPLICAS,
        threads=max(1, setting.threads // REPLICAS),
        batch_tokens=setting.batch_tokens,
    )
    with command.running(setting.out / "swaps-endpoint.log") as server:
        trial = Trial(
            server=server,
            run=run,
            pairs=pairs,
            offline=dict(offline),
            setting=setting,
            names=[f for f, _ in offline],
        )
        return trial.play()


class FollowedRun:
    """A run's directory whose exported critic is a link that is moved on.

    Args:
        root: The directory.
        versions: Critics that take turns.
    """

    def __init__(self, root: Path, versions: Sequence[Path]) -> None:
        self.root = root
        self._versions = [path.resolve() for path in versions]
        (root / "exports").mkdir(parents=True, exist_ok=True)
        (root / "config.yaml").write_text("{}\n", encoding="utf-8")

    def publish(self, number: int) -> int:
        """Let the run have another critic, which is news also if it has had it before.

        Args:
            number: Counted over all publications.

        Returns:
            Which of the versions it is.
        """
        version = number % len(self._versions)
        os.utime(self._versions[version] / "critic.json")
        link = self.root / "exports" / ".critic.new"
        link.unlink(missing_ok=True)
        link.symlink_to(self._versions[version])
        link.replace(self.root / "exports" / "critic")
        return version


@dataclass
class Client:
    """What one kind of client has seen.

    Attributes:
        checker: Checks its answers.
        requests: Requests made.
        lost: Those without scores at the end of it.
        server_errors: Those that ended in a 5xx.
        seconds: Times to the scores, repetitions included.
        statuses: Of single attempts.
    """

    checker: Checker
    requests: int = 0
    lost: int = 0
    server_errors: int = 0
    seconds: list[float] = field(default_factory=list[float])
    statuses: Counter[str] = field(default_factory=Counter[str])

    def figures(self) -> dict[str, Any]:
        """The counts."""
        return {
            "requests": self.requests,
            "answered": len(self.seconds),
            "lost": self.lost,
            "server_errors": self.server_errors,
            **self.checker.figures(),
            "attempts": dict(sorted(self.statuses.items())),
            "latency_ms": percentiles(self.seconds),
        }


@dataclass(kw_only=True)
class Trial:
    """One load on one endpoint.

    Attributes:
        server: The endpoint.
        run: What it follows.
        pairs: What it is asked about.
        offline: Fingerprint → score of every pair.
        names: Fingerprint of each version.
        setting: How long, how often.
    """

    server: Server
    run: FollowedRun
    pairs: Sequence[Pair]
    offline: dict[str, list[float]]
    names: Sequence[str]
    setting: Setting

    def __post_init__(self) -> None:
        self._polite = Client(Checker(self.offline))
        self._plain = Client(Checker(self.offline))
        self._draw = random.Random(self.setting.seed)
        self._published: list[tuple[float, str]] = []
        self._named: list[tuple[float, str]] = []
        self._kills = 0
        self._back_s: list[float] = []
        if (least := self._polite.checker.separation()) < 10 * self._polite.checker.tolerance:
            raise GadError(
                f"two versions give scores that differ by {least:g} only: a wrong answer would not show",
                hint="measure with a critic whose head is not zero",
            )

    def play(self) -> dict[str, Any]:
        """Load the endpoint until the time is over, and wait for all answers."""
        started = time.monotonic()
        asyncio.run(self._play())
        return {
            "minutes": (time.monotonic() - started) / 60.0,
            "replicas": REPLICAS,
            "versions": VERSIONS,
            "least_difference": self._polite.checker.separation(),
            "published": len(self._published),
            "seen": self._num_seen(),
            "kills": self._kills,
            "back_s": [round(seconds, 1) for seconds in self._back_s],
            "with_retries": self._polite.figures(),
            "without_retries": self._plain.figures(),
        }

    async def _play(self) -> None:
        transport = CountedAttempts(self._polite.statuses)
        async with (
            ScoreClient(self.server.url, async_transport=transport) as polite,
            httpx.AsyncClient(base_url=self.server.url, timeout=_TIMEOUT_S) as plain,
            asyncio.TaskGroup() as tasks,
        ):
            self._ends = time.monotonic() + 60.0 * self.setting.minutes
            tasks.create_task(self._swap())
            tasks.create_task(self._kill())
            for _ in range(_POLITE):
                tasks.create_task(self._until_end(lambda: self._ask_politely(polite)))
            for _ in range(_PLAIN):
                tasks.create_task(self._until_end(lambda: self._ask_plainly(plain)))

    # -- what happens to the endpoint -------------------------------------------------------------------

    async def _swap(self) -> None:
        number = 0
        while await self._pause(self.setting.swap_every_s):
            number += 1
            version = self.run.publish(number)
            self._published.append((time.monotonic(), self.names[version]))

    async def _kill(self) -> None:
        due = time.monotonic()
        while True:
            due += self.setting.kill_every_s
            await self._pause(due - time.monotonic())
            replicas = await self._all_replicas()
            if not replicas:
                return
            self._draw.choice(replicas).send_signal(signal.SIGKILL)
            killed = time.monotonic()
            self._kills += 1
            self.setting.tell(f"kill {self._kills}; {self._polite.requests} requests so far")
            await asyncio.sleep(_LOOK_EVERY_S)
            if await self._all_replicas():
                self._back_s.append(time.monotonic() - killed)

    async def _all_replicas(self) -> list[psutil.Process]:
        """The replicas, once there are as many as there should be; none if the time is over before."""
        while time.monotonic() < self._ends:
            replicas = await asyncio.to_thread(self.server.replicas)
            if len(replicas) >= REPLICAS:
                return replicas
            await asyncio.sleep(_LOOK_EVERY_S)
        return []

    async def _pause(self, seconds: float) -> bool:
        """Wait; returns whether there is time left then."""
        await asyncio.sleep(max(0.0, min(seconds, self._ends - time.monotonic())))
        return time.monotonic() < self._ends

    # -- who asks it ------------------------------------------------------------------------------------

    async def _until_end(self, ask: Callable[[], Any]) -> None:
        while time.monotonic() < self._ends:
            await ask()

    async def _ask_politely(self, client: ScoreClient) -> None:
        places = self._places()
        started = time.monotonic()
        self._polite.requests += 1
        try:
            scores = await client.score_pairs_async([self.pairs[i] for i in places])
        except EndpointError as error:
            self._polite.lost += 1
            self._polite.server_errors += error.status is not None and error.status >= 500
            self.setting.tell(f"a request was lost: {error}")
            return
        self._polite.seconds.append(time.monotonic() - started)
        self._check(self._polite, places, scores[0].fingerprint, [score.value for score in scores])

    async def _ask_plainly(self, client: httpx.AsyncClient) -> None:
        places = self._places()
        request = OwnShape().request(self.pairs, places)
        self._plain.requests += 1
        answer = await plain_answer(client, request, due=time.monotonic(), now=time.monotonic)
        self._plain.statuses[str(answer.status or "none")] += 1
        if answer.status != 200:
            self._plain.lost += 1
            self._plain.server_errors += answer.status is not None and answer.status >= 500
            return
        self._plain.seconds.append(answer.seconds)
        self._check(self._plain, places, *_told(answer))

    def _check(
        self, client: Client, places: Sequence[int], fingerprint: str, scores: Sequence[float]
    ) -> None:
        self._named.append((time.monotonic(), fingerprint))
        if not client.checker.check(places, fingerprint, scores):
            self.setting.tell(f"a wrong answer of {fingerprint[:16]}: {list(scores)} for {list(places)}")

    def _places(self) -> list[int]:
        return self._draw.sample(range(len(self.pairs)), self._draw.randint(1, _MOST_PAIRS))

    def _num_seen(self) -> int:
        """Publications whose version answered before the same version was published again."""
        seen = 0
        for number, (began, name) in enumerate(self._published):
            again = [time_s for time_s, other in self._published[number + 1 :] if other == name]
            until = again[0] if again else float("inf")
            seen += any(began <= time_s < until for time_s, other in self._named if other == name)
        return seen


class CountedAttempts(httpx.AsyncHTTPTransport):
    """The network, with a count of what came of each attempt.

    Args:
        statuses: Counts them, those without an answer under ``none``.
    """

    def __init__(self, statuses: Counter[str]) -> None:
        super().__init__()
        self._statuses = statuses

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As ``httpx.AsyncBaseTransport`` says."""
        try:
            response = await super().handle_async_request(request)
        except httpx.TransportError:
            self._statuses["none"] += 1
            raise
        self._statuses[str(response.status_code)] += 1
        return response


def _told(answer: Answer) -> tuple[str, list[float]]:
    content = json.loads(answer.content)
    return content["model_version"]["fingerprint"], OwnShape().scores(answer.content)


def make_versions(critic: Path, directory: Path, *, count: int) -> list[Path]:
    """Export critics that differ in every weight, and in their scores by far more than rounding.

    Args:
        critic: What they are made of.
        directory: Where to; what is there already is kept.
        count: How many.

    Returns:
        Their directories; version ``i`` says that it has taken ``i + 1`` steps.
    """
    paths = [directory / f"version-{number}" for number in range(count)]
    for number, path in enumerate(paths):
        if (path / "critic.json").is_file():
            continue
        opened = open_value_head(critic)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for weight in opened.model.parameters():
                noise = torch.randn(weight.shape, generator=generator).to(weight.dtype)
                weight.mul_(1.0 + _NOISE * noise)
            opened.model.head.weight.mul_(1.0 + number)
        export_critic(opened.model, path, step=number + 1, temperature=opened.temperature)
    return paths


def offline_scores(critic: Path, pairs: list[Pair]) -> tuple[str, list[float]]:
    """Fingerprint of an exported critic, and its scores, by the method that ``gad-ray score`` uses."""
    opened = open_value_head(critic, micro_batch_tokens=_SCORED_AT_ONCE)
    return opened.fingerprint().digest, [float(score) for score in opened.score(pairs)]


def _table(figures: Mapping[str, Any]) -> tables.Table:
    clients = [figures["with_retries"], figures["without_retries"]]
    rows = [["what", "client with retries", "client without"]]
    for title, name in (
        ("requests", "requests"),
        ("answered with scores", "answered"),
        ("wrong scores for the named version", "wrong"),
        ("of a version that was never served", "unknown_version"),
        ("lost", "lost"),
        ("of these ended in 5xx", "server_errors"),
    ):
        rows.append([title, *(str(client[name]) for client in clients)])
    rows.append(["attempts by status", *(counts(client["attempts"]) for client in clients)])
    rows.append(["p50, p99, longest ms", *(three(client["latency_ms"]) for client in clients)])
    return rows


def three(latency: Mapping[str, Any]) -> str:
    """Median, 99th percentile and longest, in ms."""
    return ", ".join(tables.number(latency[name]) for name in ("p50", "p99", "max"))


def counts(found: Mapping[str, int]) -> str:
    """How many of each."""
    return ", ".join(f"{name}: {count}" for name, count in found.items())


def _notes(figures: Mapping[str, Any]) -> list[str]:
    back, separation = figures["back_s"], figures["least_difference"]
    seen = f"{figures['published']} new critics, {figures['seen']} of them seen in answers before the same one came again"
    gap = figures["with_retries"]["largest_gap"]
    lines = [
        f"{figures['minutes']:.1f} minutes, {seen}, {figures['kills']} replicas killed.",
        f"Two versions' scores of a pair differ by {separation:.2g} at least; right ones were off by {gap:.1e} at most.",
    ]
    if back:
        lines.append(
            f"A killed replica's successor was there as a process after {min(back):.0f} to {max(back):.0f} s."
        )
    return lines


SWAPS = Part(
    measure=measure_swaps,
    settings=("minutes", "swap_every_s", "kill_every_s"),
    title="swaps and lost replicas",
    table=_table,
    notes=_notes,
)
