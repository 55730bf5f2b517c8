"""The channel of a run as an actor: made by the run, found by its replicas, gone with the run."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError

from gad_ray.batch import PublishedCritic
from gad_ray.models.critic_state import CriticState
from gad_ray.serving.deployment.channel import Channel, ReplicaReport
from gad_ray.serving.deployment.subscriber import ChannelGoneError

_logger = logging.getLogger("ray.serve.gad_ray")

_NAMESPACE = "gad-ray"
_ANSWER_S = 30.0
_TAKE_S = 300.0


def open_channel(run: str) -> tuple[str, Any]:
    """Start the channel of a run.

    It is not detached: it ends with the run, however that ends. One that is lost comes back empty.

    Args:
        run: Name of the run.

    Returns:
        The name by which replicas find it, and its handle.
    """
    name = f"critics-of-{run}-{uuid.uuid4().hex[:8]}"
    options: dict[str, Any] = {
        "name": name,
        "namespace": _NAMESPACE,
        "num_cpus": 0,
        "max_restarts": -1,
        "max_concurrency": 1000,
    }
    return name, ray.remote(Channel).options(**options).remote()


class RunChannel:
    """The channel of a run, seen from a replica.

    Args:
        name: What :func:`open_channel` has given.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._actor: Any = None

    async def next(self, report: ReplicaReport, wait_s: float) -> PublishedCritic | None:
        """As ``ChannelClient`` says."""
        try:
            if self._actor is None:
                self._actor = await asyncio.to_thread(ray.get_actor, self._name, _NAMESPACE)
            asked = self._actor.next.remote(report, wait_s)
            return await asyncio.wait_for(asked, wait_s + _ANSWER_S)
        except ValueError:
            raise ChannelGoneError(
                f"the run that publishes its critics as {self._name} is gone",
                hint="serve what it has exported",
            ) from None
        except (RayError, TimeoutError) as error:
            self._actor = None
            raise ConnectionError(f"the channel {self._name} does not answer: {error}") from error

    def take(self, published: PublishedCritic) -> CriticState:
        """As ``ChannelClient`` says."""
        state: CriticState = ray.get(published.state, timeout=_TAKE_S)
        return state


def replica_name() -> str:
    """What this process is called among the replicas, beginning anew with every process."""
    return str(ray.get_runtime_context().get_actor_id())[:8]


async def end_serve() -> None:
    """End Serve on the whole cluster, this replica with it: the run that began it has left it behind."""
    _logger.error("the run is gone without a word; its endpoint ends too")
    await serve.shutdown_async()
