"""Connecting to Ray on a machine that is slow to start it."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from gad_ray.actors.session import RaySession
from gad_ray.errors import GadError

_TIMED_OUT = "The current node timed out during startup. This could happen because ..."


class _SlowRay:
    """Stands in for ray.init: fails as often as it is told, in Ray's own words."""

    def __init__(self, failures: int, message: str = _TIMED_OUT) -> None:
        self.failures, self.message, self.calls = failures, message, 0

    def __call__(self, **_: Any) -> None:
        self.calls += 1
        if self.calls <= self.failures:
            raise Exception(self.message)


def _put_in_place(monkeypatch: pytest.MonkeyPatch, slow: _SlowRay) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", slow)
    monkeypatch.setattr(ray, "shutdown", lambda: None)


def test_a_cluster_that_was_too_slow_to_start_is_tried_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = _SlowRay(failures=1)
    _put_in_place(monkeypatch, slow)
    with RaySession():
        pass
    assert slow.calls == 2


def test_a_cluster_that_does_not_start_twice_is_an_error_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = _SlowRay(failures=5)
    _put_in_place(monkeypatch, slow)
    with pytest.raises(GadError, match="did not start on this machine, twice"), RaySession():
        pass
    assert slow.calls == 2


def test_another_failure_of_ray_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = _SlowRay(failures=1, message="no space left on device")
    _put_in_place(monkeypatch, slow)
    with pytest.raises(Exception, match="no space left"), RaySession():
        pass
    assert slow.calls == 1
