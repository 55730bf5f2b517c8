from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from gad_ray.batch import PublishedCritic
from gad_ray.controller.critic_publisher import EndpointWatch
from gad_ray.errors import ModelError
from gad_ray.serving.deployment.channel import ChannelStatus, ReplicaReport

CRITIC = PublishedCritic(fingerprint="ab" * 32, step=3, seconds=0.5, num_bytes=100, state=None)
NOBODY = ChannelStatus(newest=CRITIC, replicas=(), troubles=())


def raising(error: Exception) -> Callable[[], Any]:
    def call() -> Any:
        raise error

    return call


def given(values: Iterator[Any]) -> Callable[[], Any]:
    return lambda: next(values)


def test_critics_are_known_in_the_order_in_which_they_were_published_and_only_once_they_are():
    watch = EndpointWatch(status=lambda: NOBODY, trouble=lambda: None)
    later = replace(CRITIC, step=4)
    watch.expect(given(iter([None, CRITIC])))
    watch.expect(lambda: later)
    watch.look()
    assert watch.published is None
    watch.look()
    assert watch.published == later
    assert watch.take_troubles() == []


def test_a_critic_that_was_not_fit_to_be_published_is_told_and_the_next_one_goes_on():
    watch = EndpointWatch(status=lambda: NOBODY, trouble=lambda: None)
    watch.expect(raising(ModelError("2 of its weights hold numbers that are not finite")))
    watch.expect(lambda: CRITIC)
    watch.look()
    [told] = watch.take_troubles()
    assert told.startswith("publishing the critic: 2 of its weights")
    watch.look()
    assert watch.published == CRITIC
    assert watch.take_troubles() == []


def test_a_trouble_that_lasts_is_told_once_and_again_when_it_comes_back():
    answers = iter(["no CPU", "no CPU", None, "no CPU"])
    watch = EndpointWatch(status=lambda: NOBODY, trouble=given(answers))
    told: list[list[str]] = []
    for _ in range(4):
        watch.look()
        told.append(watch.take_troubles())
    assert told == [["Ray Serve: no CPU"], [], [], ["Ray Serve: no CPU"]]


def test_a_channel_that_does_not_answer_is_told_and_what_replicas_refuse_as_well():
    replica = ReplicaReport(replica="one", tried="cd", fingerprint="ab", step=2, refused="broken")
    status = ChannelStatus(newest=CRITIC, replicas=(replica,), troubles=("replica one refused it: broken",))
    answers = iter([status])

    def ask() -> ChannelStatus:
        for found in answers:
            return found
        raise TimeoutError("10 s")

    watch = EndpointWatch(status=ask, trouble=lambda: None)
    assert not watch.is_served
    watch.look()
    assert watch.is_served
    assert watch.take_troubles() == ["replica one refused it: broken"]
    watch.look()
    assert watch.take_troubles() == ["its channel: 10 s"]
    assert watch.is_served, "what was known last"


@pytest.mark.parametrize(("newest", "lost"), [(CRITIC, False), (None, True)])
def test_a_channel_that_began_anew_without_its_critic_is_noticed(newest: PublishedCritic | None, lost: bool):
    watch = EndpointWatch(status=lambda: replace(NOBODY, newest=newest), trouble=lambda: None)
    watch.look()
    assert not watch.has_lost, "nothing was published yet"
    watch.expect(lambda: CRITIC)
    watch.look()
    assert watch.has_lost is lost


def test_after_its_end_it_asks_nobody():
    watch = EndpointWatch(status=raising(AssertionError()), trouble=raising(AssertionError()), every_s=3600.0)
    watch.start()
    watch.stop()
    watch.look()
    assert watch.take_troubles() == []
