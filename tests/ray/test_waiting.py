"""Every wait has a deadline, names what it waits for, and can be given up."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from gad_ray.actors.waiting import Waiter
from gad_ray.errors import ActorDiedError, DeadlineError, GadError, ModelError
from tests.cluster import Cluster


class Patient:
    """Waits are never to be given up."""

    def check(self) -> None:
        """Let the wait go on."""


class Given:
    """Waits are to be given up at once."""

    def check(self) -> None:
        """End the wait."""
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def connected(ray_cluster: Cluster) -> Iterator[None]:
    ray.init(address=ray_cluster.address, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture
def endless(connected: None) -> Iterator[Any]:
    """A reference to what never comes."""

    def wait() -> None:
        threading.Event().wait()

    ref = ray.remote(num_cpus=0)(wait).remote()
    yield ref
    ray.cancel(ref, force=True)


def task(result: Any) -> Any:
    """A reference to what a call of ``result`` gives."""
    return ray.remote(num_cpus=0, max_retries=0)(result).remote()


@pytest.fixture
def waiter(connected: None, tmp_path: Path) -> Waiter:
    log = tmp_path / "critic-0.log"
    log.write_text("loading\nout of luck\n")
    return Waiter({"critic-0": log}, Patient())


def test_values_come_in_the_order_of_the_references_whatever_is_done_first(waiter: Waiter) -> None:
    refs = [task(lambda i=i: 10 * i) for i in range(5)]
    ray.wait([refs[4]], timeout=300)
    assert waiter.get(refs, what="numbers", deadline_s=60) == [0, 10, 20, 30, 40]


def test_nothing_is_waited_for_nothing(waiter: Waiter) -> None:
    assert waiter.get([], what="nothing", deadline_s=0.0) == []


def test_a_deadline_tells_what_was_waited_for_how_much_is_missing_and_where_to_look(
    waiter: Waiter, endless: Any, tmp_path: Path
) -> None:
    done = task(lambda: 1)
    ray.wait([done], timeout=300)
    with pytest.raises(DeadlineError) as caught:
        waiter.get([done, endless], what="the scores of step 7", deadline_s=0.1)
    assert "the scores of step 7 did not end within 0.1 s; 1 of 2 parts are missing" in str(caught.value)
    assert str(tmp_path / "critic-0.log") in str(caught.value)


def test_an_error_of_ours_arrives_as_it_was_raised(waiter: Waiter, endless: Any) -> None:
    def fails() -> None:
        raise ModelError("too small", where="here", hint="grow it")

    with pytest.raises(ModelError) as caught:
        # What is still under way is not waited for.
        waiter.get([endless, task(fails)], what="a model", deadline_s=60)
    assert (caught.value.message, caught.value.where, caught.value.hint) == ("too small", "here", "grow it")


def test_any_other_error_is_told_with_what_it_happened_in(waiter: Waiter) -> None:
    def fails() -> None:
        raise ZeroDivisionError("by nought")

    with pytest.raises(GadError, match=r"(?s)the update of step 3 failed.*by nought"):
        waiter.get([task(fails)], what="the update of step 3", deadline_s=60)


@pytest.mark.parametrize("kind", ["ObjectStoreFullError", "OutOfDiskError"])
def test_a_full_object_store_is_told_with_what_mends_it(waiter: Waiter, kind: str) -> None:
    def fails() -> None:
        raise getattr(ray.exceptions, kind)("no room")

    with pytest.raises(GadError, match=r"(?s)no room left during the policy's weights.*no room") as caught:
        waiter.get([task(fails)], what="the policy's weights", deadline_s=60)
    assert "--object-store-memory" in (caught.value.hint or "")


def test_a_dead_actor_is_told_with_the_tail_of_its_log(waiter: Waiter) -> None:
    class Frail:
        def die(self) -> None:
            os._exit(1)

    actor = ray.remote(num_cpus=0)(Frail).remote()
    with pytest.raises(ActorDiedError) as caught:
        waiter.get([actor.die.remote()], what="the update of step 3", deadline_s=60)
    assert "an actor died during the update of step 3" in str(caught.value)
    assert "out of luck" in str(caught.value)


def test_a_wait_is_given_up_when_a_signal_says_so(endless: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        Waiter({}, Given()).get([endless], what="what never comes", deadline_s=600)
