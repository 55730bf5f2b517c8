"""A run and its endpoint, with Ray's part played by others."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gad_ray.actors.groups import ActorGroups
from gad_ray.batch import PublishedCritic
from gad_ray.config import RunConfig, load_config
from gad_ray.controller import critic_publisher as module
from gad_ray.controller.critic_publisher import CriticPublisher, check_endpoint
from gad_ray.controller.progress import Progress
from gad_ray.errors import ConfigError, GadError
from gad_ray.serving.deployment import ray_serve, run_channel
from gad_ray.serving.deployment.channel import ChannelStatus, ReplicaReport
from gad_ray.serving.deployment.settings import ServeSettings


class Method:
    """A remote method whose references are what it was given."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.calls: list[tuple[Any, ...]] = []

    def remote(self, *given: Any) -> Any:
        self.calls.append(given)
        return self.answer


class Told:
    """What a run says."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.events: list[tuple[str, dict[str, object]]] = []
        self.infos: list[str] = []

    def warn(self, what: str, text: str) -> None:
        self.warnings.append(f"{what}: {text}")

    def event(self, name: str, **content: object) -> None:
        self.events.append((name, content))

    def info(self, text: str) -> None:
        self.infos.append(text)

    @contextmanager
    def activity(self, text: str) -> Generator[None]:
        yield


class Deploying:
    """Stands in for what starts and ends Ray Serve."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.settings: ServeSettings | None = None
        self.failure: Exception | None = None
        self.ending: Exception | None = None
        self.may_end = threading.Event()
        self.may_end.set()

    def refuse_second_serve(self) -> None:
        self.order.append("look")

    def listen(self, host: str, port: int, **_: Any) -> None:
        self.order.append(f"listen {host}:{port}")
        if self.failure is not None:
            raise self.failure

    def deploy(self, settings: ServeSettings, *, wait: bool) -> None:
        assert not wait
        self.settings = settings
        self.order.append("deploy")

    def trouble(self) -> str | None:
        return None

    def end(self) -> None:
        self.may_end.wait(30)
        self.order.append("end")
        if self.ending is not None:
            raise self.ending


class Run:
    """A run with an endpoint whose parts are here."""

    def __init__(self, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told, self.deploying = Told(), Deploying()
        self.published: list[None] = []
        self.channel = SimpleNamespace(offer=Method("an offer"), status=Method())
        self.killed: list[object] = []
        for name in ("refuse_second_serve", "listen", "deploy", "trouble", "end"):
            monkeypatch.setattr(ray_serve, name, getattr(self.deploying, name))
        monkeypatch.setattr(run_channel, "open_channel", lambda run: (f"channel of {run}", self.channel))
        monkeypatch.setattr(module, "ray", SimpleNamespace(kill=self.killed.append))
        monkeypatch.setattr(module.EndpointWatch, "start", lambda watch: None)
        monkeypatch.setattr(module.EndpointWatch, "stop", lambda watch: None)
        groups = SimpleNamespace(critic=SimpleNamespace(publish=self._publish))
        self.publisher = CriticPublisher(
            config, groups=cast("ActorGroups", groups), progress=cast("Progress", self.told)
        )

    @property
    def num_published(self) -> int:
        assert len(self.channel.offer.calls) == len(self.published)
        return len(self.published)

    def _publish(self) -> str:
        self.published.append(None)
        return "a critic on its way"


def config_of(directory: Path, *overrides: str) -> RunConfig:
    return load_config("quickstart", [f"output_dir={directory}", "serve.port=1", *overrides])


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(module, "settings_of_run", lambda serve, environment: ServeSettings(channel="none"))
    return Run(config_of(tmp_path, "serve.enabled=true", "serve.publish_every=3"), monkeypatch)


def test_a_run_without_an_endpoint_has_nothing_to_do_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(config_of(tmp_path), monkeypatch)
    with run.publisher as online:
        online.open()
        assert online.publish(0, always=True) == online.after_step(1) == {}
    assert run.deploying.order == []
    assert run.num_published == 0


def test_the_endpoint_is_opened_for_the_runs_channel_and_ends_with_the_run(run: Run) -> None:
    with run.publisher as online:
        online.open()
        assert run.deploying.settings is not None
        assert run.deploying.settings.channel == "channel of quickstart"
    assert run.deploying.order == ["look", "listen 127.0.0.1:1", "deploy", "end"]
    assert run.killed == [run.channel]
    assert run.told.warnings == []


def test_a_critic_is_published_when_it_is_due_and_again_when_the_channel_has_lost_it(run: Run) -> None:
    run.publisher.open()
    assert "timing_s/publish" in run.publisher.publish(0, always=True)
    for step in (1, 2):
        assert run.publisher.publish(step) == {}
    assert run.publisher.publish(3)
    assert run.publisher.publish(5, always=True)
    assert run.num_published == 3
    assert run.channel.offer.calls == [("a critic on its way",)] * 3
    watch = run.publisher._watch
    assert watch is not None
    watch.published = PublishedCritic(fingerprint="ab" * 32, step=5, seconds=0.1, num_bytes=1, state=None)
    assert run.publisher.publish(7)


def test_each_step_tells_how_far_the_replicas_are_and_what_went_wrong(run: Run) -> None:
    run.publisher.open()
    watch = run.publisher._watch
    assert watch is not None
    assert run.publisher.after_step(1) == {"serve/replicas": 0.0, "serve/troubles": 0.0}
    watch.published = PublishedCritic(fingerprint="ab" * 32, step=5, seconds=0.25, num_bytes=64, state=None)
    replicas = tuple(
        ReplicaReport(replica=name, tried="ab", fingerprint=fingerprint, step=step, refused=None)
        for name, fingerprint, step in (("a", "ab", 5), ("b", "cd", 4), ("c", None, 0))
    )
    watch.channel = ChannelStatus(newest=watch.published, replicas=replicas, troubles=())
    watch._troubles.append("replica b refused it: broken")
    assert run.publisher.after_step(2) == {
        "serve/replicas": 3.0,
        "serve/troubles": 1.0,
        "serve/served_step": 4.0,
        "serve/published_step": 5.0,
        "serve/published_fingerprint": float(0xABABABABABAB),
        "serve/publish_seconds": 0.25,
        "serve/published_bytes": 64.0,
    }
    assert run.told.infos == ["the critic is served at http://127.0.0.1:1"]
    assert run.told.warnings == ["serve: replica b refused it: broken"]
    assert run.told.events == [("serve_failed", {"step": 2, "error": "replica b refused it: broken"})]
    run.publisher.after_step(3)
    assert len(run.told.infos) == len(run.told.warnings) == 1


def test_an_endpoint_that_cannot_be_opened_stops_the_run_before_it_begins_and_is_cleared_away(
    run: Run,
) -> None:
    run.deploying.failure = RuntimeError("the proxy did not start")
    with (
        pytest.raises(GadError, match="cannot be opened: the proxy did not start"),
        run.publisher as online,
    ):
        online.open()
    assert run.deploying.order[-1] == "end"


def test_an_endpoint_that_is_slow_to_start_is_told_and_the_run_begins(run: Run) -> None:
    run.deploying.failure = TimeoutError("not up in 60 s")
    run.publisher.open()
    assert run.told.warnings == ["serve: it is slow to start: not up in 60 s"]
    assert run.deploying.order[-1] == "deploy"
    assert run.publisher.publish(3)


def test_an_end_that_fails_or_takes_too_long_is_told_and_holds_the_run_no_longer(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.deploying.ending = RuntimeError("Serve is gone already")
    run.publisher.open()
    run.publisher.close()
    monkeypatch.setattr(module, "_GRACE_S", -5.0)
    run.deploying.may_end.clear()
    run.publisher.open()
    run.publisher.close()
    run.deploying.may_end.set()
    assert run.told.warnings == [
        "serve: it did not end in good order: RuntimeError: Serve is gone already",
        "serve: it did not end in good order: it took too long",
    ]


def test_an_address_that_others_reach_needs_a_key_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GAD_RAY_SERVE_KEYS", raising=False)
    with pytest.raises(ConfigError, match="no key is set"):
        check_endpoint(config_of(tmp_path, "serve.enabled=true", "serve.host=0.0.0.0"))
    check_endpoint(config_of(tmp_path, "serve.host=0.0.0.0"))
