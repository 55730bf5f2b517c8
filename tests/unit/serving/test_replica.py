import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from gad_ray.batch import PublishedCritic
from gad_ray.errors import GadError
from gad_ray.models.critic_state import CriticState, frame_of
from gad_ray.serving.deployment import ray_serve
from gad_ray.serving.deployment.channel import ReplicaReport
from gad_ray.serving.deployment.ray_serve import CriticReplica, build
from gad_ray.serving.deployment.settings import settings_from
from gad_ray.serving.deployment.subscriber import ChannelGoneError
from tests.unit.serving.conftest import make_learner
from tests.unit.serving.lora import make_lora_learner

T = TypeVar("T")


def use(call: Callable[[CriticReplica, httpx.AsyncClient], Awaitable[T]], **changed: Any) -> T:
    """A replica as Ray Serve makes it, without Ray Serve."""

    async def run() -> T:
        settings = settings_from({"critic": "unused", "follow_every_s": 0.01, **changed})
        replica = CriticReplica(settings.for_replica())
        app = replica.__serve_build_asgi_app__()
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client,
        ):
            return await call(replica, client)

    return asyncio.run(run())


async def served_now(client: httpx.AsyncClient) -> str:
    return (await client.get("/v1/models")).json()["data"][0]["model_version"]["fingerprint"]


async def until_served(client: httpx.AsyncClient, fingerprint: str) -> None:
    async with asyncio.timeout(60):
        while await served_now(client) != fingerprint:
            await asyncio.sleep(0)


def test_a_replica_is_ready_with_its_first_critic_and_keeps_it_when_a_bad_one_comes(
    critic_dir: Path, tmp_path: Path
):
    async def call(replica: CriticReplica, client: httpx.AsyncClient) -> None:
        before = await client.get("/ready")
        assert (before.status_code, before.json()["error"]["code"]) == (503, "not_ready")
        with pytest.raises(GadError, match="is not an exported critic"):
            await replica.reconfigure({"critic": str(tmp_path), "follow": None})
        await replica.reconfigure({"critic": str(critic_dir), "follow": None})
        first = await served_now(client)
        await replica.reconfigure({"critic": str(tmp_path), "follow": None})
        assert await served_now(client) == first
        assert (await client.get("/ready")).status_code == 200

    use(call)


def test_a_replica_that_follows_a_run_has_its_newest_good_critic_and_one_that_is_told_so_stays(
    tied_model: Path, tmp_path: Path
):
    learners = [make_learner(tied_model, seed=seed) for seed in (1, 2)]
    prints = [learner.fingerprint().digest for learner in learners]
    (tmp_path / "config.yaml").touch()
    export = tmp_path / "exports" / "critic"

    async def call(replica: CriticReplica, client: httpx.AsyncClient) -> None:
        with pytest.raises(GadError, match="has no critic yet"):
            await replica.reconfigure({"critic": None, "follow": str(tmp_path)})
        learners[0].export(export)
        await replica.reconfigure({"critic": None, "follow": str(tmp_path)})
        assert await served_now(client) == prints[0]
        learners[1].export(export)
        await until_served(client, prints[1])
        # Back to the one before, by its name; the run is not followed any more.
        await replica.reconfigure({"critic": prints[0][:16], "follow": None})
        assert replica._following is None
        assert await served_now(client) == prints[0]

    use(call)


def test_a_replica_serves_lora_critics_beside_its_critic_and_through_its_changes(
    critic_dir: Path, tied_model: Path, tmp_path: Path
):
    make_lora_learner(tied_model, seed=3).export(tmp_path / "law")
    make_learner(tied_model, seed=1).export(tmp_path / "next")
    body = {"queries": "Hi", "documents": ["a", "b"], "model": "law"}

    async def call(replica: CriticReplica, client: httpx.AsyncClient) -> None:
        await replica.reconfigure({"critic": str(critic_dir)})
        first = await served_now(client)
        before = (await client.post("/v1/score", json=body)).json()
        await replica.reconfigure({"critic": str(tmp_path / "next")})
        assert await served_now(client) != first
        after = (await client.post("/v1/score", json=body)).json()
        assert (before["model"], before["model_version"]) == ("law", after["model_version"])
        assert before["data"] == after["data"]

    use(call, adapters={"law": str(tmp_path / "law")})


def test_the_application_is_one_deployment_whose_source_is_its_user_config(tmp_path: Path):
    built = build({"critic": str(tmp_path), "num_replicas": 2})._bound_deployment
    assert (built.name, built.num_replicas) == ("critic", 2)
    assert built.user_config == {"critic": str(tmp_path)}
    assert built.max_ongoing_requests > 2 * 512
    scaling = {"target_wait_s": 2.0, "down_after_s": 7.0}
    growing = build({"critic": str(tmp_path), "max_replicas": 4, "scaling": scaling})._bound_deployment
    bounds = growing._deployment_config.autoscaling_config
    assert (bounds.min_replicas, bounds.max_replicas, bounds.downscale_delay_s) == (1, 4, 7.0)
    assert bounds.policy.policy_kwargs == {"target_wait_s": 2.0}


def test_a_replica_takes_what_a_run_publishes_and_ends_serve_when_the_run_is_gone(
    tied_model: Path, monkeypatch: pytest.MonkeyPatch
):
    learner = make_learner(tied_model)
    state = learner.published(frame_of(learner.model))
    critic = PublishedCritic(
        fingerprint=state.fingerprint.digest, step=state.step, seconds=0.0, num_bytes=0, state=state
    )
    asked: list[tuple[str, ReplicaReport]] = []
    ended = asyncio.Event()

    class RunThatEnds:
        def __init__(self, name: str) -> None:
            self._name = name

        async def next(self, report: ReplicaReport, wait_s: float) -> PublishedCritic:
            asked.append((self._name, report))
            if report.tried is None:
                return critic
            raise ChannelGoneError("the run is gone")

        def take(self, published: PublishedCritic) -> CriticState:
            return published.state

    async def end_serve() -> None:
        ended.set()

    monkeypatch.setattr(ray_serve, "RunChannel", RunThatEnds)
    monkeypatch.setattr(ray_serve, "replica_name", lambda: "one")
    monkeypatch.setattr(ray_serve, "end_serve", end_serve)

    async def call(replica: CriticReplica, client: httpx.AsyncClient) -> None:
        await replica.reconfigure({"channel": "critics-of-run"})
        assert await served_now(client) == critic.fingerprint
        await ended.wait()

    use(call)
    [first, second] = asked
    assert (first[0], first[1].fingerprint) == ("critics-of-run", None)
    assert (second[1].replica, second[1].tried, second[1].fingerprint) == (
        "one",
        critic.fingerprint,
        critic.fingerprint,
    )
