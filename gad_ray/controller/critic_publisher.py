"""The critic online: a run's own endpoint.

    critic group ─► object store ─► channel ─► replicas ─► HTTP
                        the run only asks for it and goes on

A step gives the time of two remote calls. Whatever else there is to know or to go wrong is looked after by a thread beside
it: training goes on without an endpoint, and says so.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from gad_ray.activity import activity
from gad_ray.actors.groups import ActorGroups
from gad_ray.batch import Metrics, PublishedCritic
from gad_ray.config import RunConfig
from gad_ray.controller.progress import Progress
from gad_ray.errors import GadError
from gad_ray.serving.deployment.address import settings_of_run, url_of
from gad_ray.serving.deployment.channel import ChannelStatus

# What needs Ray Serve is imported where it is used: that takes over a second, and most runs serve nothing.

_ANSWER_S = 10.0
_GRACE_S = 15.0
_LOOK_EVERY_S = 1.0
_END_S = 10.0


class CriticPublisher:
    """A context in which a run's critic is served, if the run's configuration says so.

    Args:
        config: The run.
        groups: Its actors.
        progress: Where it is told what becomes of it.
    """

    def __init__(self, config: RunConfig, *, groups: ActorGroups, progress: Progress) -> None:
        self._config = config
        self._groups = groups
        self._progress = progress
        self._channel: Any = None
        self._watch: EndpointWatch | None = None
        self._has_begun = False
        self._is_announced = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Start what listens. The replicas come up beside the run, and wait for its first critic.

        Raises:
            GadError: If somebody serves on this cluster already, or nothing can listen there.
        """
        serve = self._config.serve
        if not serve.enabled:
            return
        from gad_ray.serving.deployment import ray_serve
        from gad_ray.serving.deployment.run_channel import open_channel

        with activity("opening the critic's endpoint"):
            ray_serve.refuse_second_serve()
            settings = settings_of_run(serve, environment=os.environ)
            self._has_begun = True
            name, self._channel = open_channel(self._config.name)
            settings = settings.model_copy(update={"channel": name})
            try:
                self._start(lambda: ray_serve.listen(serve.host, serve.port, limits=settings.limits))
                self._start(lambda: ray_serve.deploy(settings, wait=False))
            except (RayError, RuntimeError) as failed:
                raise GadError(
                    f"the critic's endpoint cannot be opened: {failed}",
                    where="serve",
                    hint="choose another serve.port, or set serve.enabled=false",
                ) from failed
        self._watch = EndpointWatch(status=self._status, trouble=ray_serve.trouble)
        self._watch.start()

    def _start(self, part: Callable[[], None]) -> None:
        """Start a part of Serve. What is slow on a machine that has much to do is tried again by Serve itself."""
        try:
            part()
        except (RayActorError, TimeoutError) as slow:
            self._tell(f"it is slow to start: {slow}", step=None)

    def publish(self, step: int, *, always: bool = False) -> Metrics:
        """Have the critic as it is now handed to the replicas, where that is due. Nothing is waited for.

        Args:
            step: Steps of the run that have been done.
            always: It is due whatever the step.

        Returns:
            The time that it took here, if it was done.
        """
        if self._watch is None:
            return {}
        due = step % self._config.serve.publish_every == 0 or always or self._watch.has_lost
        if not due:
            return {}
        started = time.perf_counter()
        offered = self._channel.offer.remote(self._groups.critic.publish())
        self._watch.expect(lambda: _settled(offered))
        return {"timing_s/publish": time.perf_counter() - started}

    def after_step(self, step: int) -> Metrics:
        """Tell what has happened with the endpoint since the step before.

        Returns:
            ``serve/*``; nothing without an endpoint.
        """
        watch = self._watch
        if watch is None:
            return {}
        troubles = watch.take_troubles()
        for trouble in troubles:
            self._tell(trouble, step=step)
        if watch.is_served and not self._is_announced:
            self._is_announced = True
            serve = self._config.serve
            self._progress.info(f"the critic is served at {url_of(serve.host, serve.port)}")
        replicas = watch.channel.replicas
        metrics: Metrics = {"serve/replicas": float(len(replicas)), "serve/troubles": float(len(troubles))}
        if watch.is_served:
            steps = [replica.step for replica in replicas if replica.fingerprint is not None]
            metrics["serve/served_step"] = float(min(steps))
        if watch.published is not None:
            metrics |= {
                "serve/published_step": float(watch.published.step),
                "serve/published_fingerprint": float(int(watch.published.fingerprint[:12], 16)),
                "serve/publish_seconds": watch.published.seconds,
                "serve/published_bytes": float(watch.published.num_bytes),
            }
        return metrics

    def close(self) -> None:
        """End the endpoint: requests under way are answered. It takes ``serve.drain_s`` and a little more at most."""
        if not self._has_begun:
            return
        self._has_begun = False
        if self._watch is not None:
            self._watch.stop()
        with activity("closing the critic's endpoint"):
            ending = _Ending()
            ending.start()
            ending.join(self._config.serve.drain_s + _GRACE_S)
        if ending.trouble is not None:
            self._tell(f"it did not end in good order: {ending.trouble}", step=None)
        if self._channel is not None:
            ray.kill(self._channel)

    def _status(self) -> ChannelStatus:
        status: ChannelStatus = ray.get(self._channel.status.remote(), timeout=_ANSWER_S)
        return status

    def _tell(self, trouble: str, *, step: int | None) -> None:
        self._progress.warn("serve", trouble)
        self._progress.event("serve_failed", step=step, error=trouble)


class EndpointWatch:
    """A thread that hears what became of published critics, and how the endpoint is.

    Args:
        status: What the channel tells; may wait and fail.
        trouble: What Serve says of an application that fails; may wait and fail.
        every_s: Time between two looks.
    """

    def __init__(
        self,
        *,
        status: Callable[[], ChannelStatus],
        trouble: Callable[[], str | None],
        every_s: float = _LOOK_EVERY_S,
    ) -> None:
        self._status = status
        self._trouble = trouble
        self._every_s = every_s
        self._offers: deque[Callable[[], PublishedCritic | None]] = deque()
        self._troubles: deque[str] = deque()
        self._told: dict[str, str | None] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="endpoint-watch", daemon=True)
        self.published: PublishedCritic | None = None
        self.channel = ChannelStatus(newest=None, replicas=(), troubles=())

    @property
    def is_served(self) -> bool:
        """Whether a replica has a critic."""
        return any(replica.fingerprint is not None for replica in self.channel.replicas)

    @property
    def has_lost(self) -> bool:
        """Whether the channel has nothing of what was published: its process was lost, and began anew."""
        return self.published is not None and self.channel.newest is None

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def expect(self, settled: Callable[[], PublishedCritic | None]) -> None:
        """A critic is on its way.

        Args:
            settled: Gives the news of it, None while there is none, and raises where it failed.
        """
        self._offers.append(settled)

    def take_troubles(self) -> list[str]:
        """What has gone wrong since the last call."""
        return [self._troubles.popleft() for _ in range(len(self._troubles))]

    def look(self) -> None:
        """Look once."""
        self._try("publishing the critic", self._settle)
        self._try("its channel", self._ask_channel)
        self._try("Ray Serve", self._ask_serve)

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join(_END_S)

    def _watch(self) -> None:
        while not self._ended.wait(self._every_s):
            self.look()

    def _try(self, what: str, look: Callable[[], None]) -> None:
        if self._ended.is_set():
            return
        try:
            look()
        # The one border of the endpoint: whatever is wrong with it, the run is worth more.
        except Exception as error:  # noqa: BLE001
            self._note(what, f"{what}: {error}")
        else:
            self._told[what] = None

    def _settle(self) -> None:
        while self._offers:
            news = self._offers.popleft()
            found = news()
            if found is None:
                self._offers.appendleft(news)
                return
            self.published = found

    def _ask_channel(self) -> None:
        self.channel = self._status()
        self._troubles.extend(self.channel.troubles)

    def _ask_serve(self) -> None:
        told = self._trouble()
        if told:
            raise GadError(told)

    def _note(self, what: str, text: str) -> None:
        """A trouble that lasts is told once."""
        if self._told.get(what) != text:
            self._told[what] = text
            self._troubles.append(text)


class _Ending(threading.Thread):
    """Ends Serve, for as long as the run waits for it.

    Attributes:
        trouble: Why it has not ended; None once it has.
    """

    def __init__(self) -> None:
        super().__init__(name="endpoint-ending", daemon=True)
        self.trouble: str | None = "it took too long"

    def run(self) -> None:
        from gad_ray.serving.deployment import ray_serve

        try:
            ray_serve.end()
            self.trouble = None
        # The run has come to its end, and that is not to fail.
        except Exception as error:  # noqa: BLE001
            self.trouble = f"{type(error).__name__}: {error}"


def _settled(offered: Any) -> PublishedCritic | None:
    """What became of a critic that was offered; None while that is open."""
    done, _ = ray.wait([offered], timeout=0)
    if not done:
        return None
    try:
        published: PublishedCritic = ray.get(offered)
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, GadError) else error) from None
    return published


def check_endpoint(config: RunConfig) -> None:
    """Refuse an endpoint that must not or cannot be opened, before the run begins.

    Raises:
        ConfigError: With the reason.
    """
    if config.serve.enabled:
        from gad_ray.serving.deployment import ray_serve

        settings_of_run(config.serve, environment=os.environ)
        ray_serve.prepare_cluster()
