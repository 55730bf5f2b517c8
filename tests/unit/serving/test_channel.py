import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from gad_ray.batch import PublishedCritic
from gad_ray.config.endpoint import BatchSettings, Limits
from gad_ray.errors import ModelError
from gad_ray.models.critic_state import CriticState, frame_of
from gad_ray.serving.application.batcher import Batcher
from gad_ray.serving.application.loaded_critic import ServedCritic
from gad_ray.serving.application.service import ScoringService
from gad_ray.serving.application.versions import Versions
from gad_ray.serving.deployment.channel import Channel, ReplicaReport
from gad_ray.serving.deployment.subscriber import ChannelGoneError, Subscriber
from tests.unit.serving.conftest import make_learner

T = TypeVar("T")


@pytest.fixture(scope="module")
def states(tied_model: Path) -> list[CriticState]:
    """Three critics of a run."""
    learners = [make_learner(tied_model, seed=seed) for seed in range(3)]
    frame = frame_of(learners[0].model)
    return [replace(learner.published(frame), step=step) for step, learner in enumerate(learners)]


def offered(state: CriticState) -> PublishedCritic:
    return PublishedCritic(
        fingerprint=state.fingerprint.digest,
        step=state.step,
        seconds=0.1,
        num_bytes=state.num_bytes,
        state=state,
    )


def report(replica: str = "one", *, tried: str | None = None, refused: str | None = None) -> ReplicaReport:
    return ReplicaReport(replica=replica, tried=tried, fingerprint=None, step=0, refused=refused)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Direct:
    """A channel in this process; fails where it is told to."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.failures: Iterator[Exception] = iter(())
        self.taken: list[str] = []

    async def next(self, report: ReplicaReport, wait_s: float) -> PublishedCritic | None:
        for failure in self.failures:
            raise failure
        return await self.channel.next(report, wait_s)

    def take(self, published: PublishedCritic) -> CriticState:
        self.taken.append(published.fingerprint)
        state: CriticState = published.state
        return state


def use(call: Callable[[Direct, Versions, Subscriber], Awaitable[T]]) -> T:
    async def run() -> T:
        batcher = Batcher(BatchSettings(), max_queued_tokens=10**6, max_queued_requests=1000)
        service = ScoringService(None, name="critic", limits=Limits(), batcher=batcher)
        client = Direct(Channel())
        versions = Versions(service, load=ServedCritic.load, keep=0)
        subscriber = Subscriber(
            client, versions, build=ServedCritic.of_state, replica="one", wait_s=0.0, retry_s=0.0
        )
        try:
            return await call(client, versions, subscriber)
        finally:
            await service.close()

    return asyncio.run(run())


def test_whoever_asks_gets_the_newest_critic_and_the_channel_holds_no_other(states: list[CriticState]):
    async def run() -> None:
        channel = Channel()
        news = [await channel.offer(offered(state)) for state in states]
        assert [one.state for one in news] == [None] * 3
        late = await channel.next(report("late"), 0.0)
        assert late == offered(states[2])
        again = await channel.next(report("late", tried=states[2].fingerprint.digest), 0.0)
        assert again is None
        held = [value for value in vars(channel).values() if isinstance(value, PublishedCritic)]
        assert held == [offered(states[2])]

    asyncio.run(run())


def test_a_replica_that_waits_is_told_when_a_critic_comes(states: list[CriticState]):
    async def run() -> None:
        channel = Channel()
        waiting = [asyncio.ensure_future(channel.next(report(name), 3600.0)) for name in ("one", "two")]
        while len((await channel.status()).replicas) < 2:
            await asyncio.sleep(0)
        await channel.offer(offered(states[0]))
        assert await asyncio.gather(*waiting) == [offered(states[0])] * 2

    asyncio.run(run())


def test_the_status_tells_who_asks_of_late_and_each_refusal_once():
    async def run() -> None:
        clock = Clock()
        channel = Channel(clock)
        await channel.next(report("gone"), 0.0)
        clock.now += 25.0
        for _ in range(3):
            await channel.next(report("here", tried="ab", refused="it is broken"), 0.0)
        clock.now += 10.0
        status = await channel.status()
        assert [one.replica for one in status.replicas] == ["here"]
        assert status.troubles == ("replica here refused it: it is broken",)
        await channel.next(report("here", tried="ab", refused="it is broken"), 0.0)
        assert (await channel.status()).troubles == ()
        await channel.next(report("here", tried="cd", refused="it is broken too"), 0.0)
        assert len((await channel.status()).troubles) == 1

    asyncio.run(run())


def test_a_replica_serves_each_new_critic_and_one_that_comes_later_the_newest_alone(
    states: list[CriticState],
):
    async def call(client: Direct, versions: Versions, subscriber: Subscriber) -> None:
        await client.channel.offer(offered(states[0]))
        await subscriber.first()
        assert versions.present is not None
        assert (versions.present.fingerprint, versions.present.step) == (states[0].fingerprint.digest, 0)
        await client.channel.offer(offered(states[1]))
        await client.channel.offer(offered(states[2]))
        assert await subscriber.look()
        assert versions.present.step == 2
        assert not await subscriber.look(), "nothing is new"
        assert client.taken == [states[i].fingerprint.digest for i in (0, 2)]
        [told] = (await client.channel.status()).replicas
        assert (told.fingerprint, told.step, told.refused) == (states[2].fingerprint.digest, 2, None)

    use(call)


def test_a_broken_critic_is_refused_and_told_and_the_next_one_served(states: list[CriticState]):
    broken = replace(states[1], head={**states[1].head, "weight": states[1].head["weight"] + 1})

    async def call(client: Direct, versions: Versions, subscriber: Subscriber) -> None:
        await client.channel.offer(offered(states[0]))
        await subscriber.first()
        await client.channel.offer(offered(broken))
        assert not await subscriber.look()
        assert versions.present is not None
        assert versions.present.fingerprint == states[0].fingerprint.digest
        # It is not tried again, and what it tells says so.
        assert not await subscriber.look()
        [trouble] = (await client.channel.status()).troubles
        assert "its head are not those it was published with" in trouble
        await client.channel.offer(offered(states[2]))
        assert await subscriber.look()
        assert versions.refused is None

    use(call)


def test_the_first_critic_is_waited_for_past_one_that_is_not_fit_and_a_channel_that_does_not_answer(
    states: list[CriticState],
):
    async def call(client: Direct, versions: Versions, subscriber: Subscriber) -> None:
        await client.channel.offer(offered(replace(states[0], weights={})))
        client.failures = iter([ConnectionError("restarting")])
        first = asyncio.ensure_future(subscriber.first())
        while versions.refused is None:
            await asyncio.sleep(0)
        assert not first.done()
        await client.channel.offer(offered(states[1]))
        await first
        assert versions.present is not None
        assert versions.present.fingerprint == states[1].fingerprint.digest

    use(call)


def test_a_critic_that_cannot_be_taken_any_more_is_refused_like_a_broken_one(states: list[CriticState]):
    async def call(client: Direct, versions: Versions, subscriber: Subscriber) -> None:
        def lost(_published: PublishedCritic) -> CriticState:
            raise ModelError("its owner has died")

        await client.channel.offer(offered(states[0]))
        client.take = lost  # type: ignore[method-assign]
        assert not await subscriber.look()
        assert "its owner has died" in str(versions.refused)

    use(call)


def test_a_replica_looks_no_more_when_the_run_is_gone(states: list[CriticState]):
    async def call(client: Direct, versions: Versions, subscriber: Subscriber) -> None:
        await client.channel.offer(offered(states[0]))
        await subscriber.first()
        client.failures = iter([ChannelGoneError("the run is gone")])
        with pytest.raises(ChannelGoneError):
            await subscriber.keep_looking()
        assert versions.present is not None

    use(call)
