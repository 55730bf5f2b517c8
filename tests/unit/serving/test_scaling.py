"""How many replicas are wanted, by what those that there are tell."""

import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from ray.serve.config import AutoscalingPolicy

from gad_ray.serving.application.throughput_estimate import ScoringPace
from gad_ray.serving.deployment.scaling import BUSY, WAITING_S, WaitingWork


@dataclass
class Context:
    current_num_replicas: int
    target_num_replicas: int
    aggregated_metrics: Mapping[str, Mapping[str, float]] | None


def wanted(waiting: list[float], busy: list[float]) -> int:
    """With five seconds of work that may wait for each; rounded up, as Serve does it."""
    metrics = {
        name: {f"replica-{i}": value for i, value in enumerate(values)}
        for name, values in ((WAITING_S, waiting), (BUSY, busy))
    }
    replicas, state = WaitingWork(5.0)(Context(len(waiting), len(waiting), metrics))
    assert state == {}
    return math.ceil(replicas)


@pytest.mark.parametrize(
    ("waiting", "busy", "replicas"),
    [
        ([0.0], [0.0], 1),
        ([4.9], [1.0], 1),
        ([5.1], [1.0], 2),
        ([31.0], [1.0], 7),
        # One of two has most of the queue: it is the whole that counts.
        ([9.0, 2.0], [1.0, 1.0], 3),
        # Nothing waits because two do it: one alone would be busy for more than it can be.
        ([0.1, 0.1], [0.5, 0.5], 2),
        ([0.1, 0.1], [0.4, 0.39], 1),
        ([0.0, 0.0, 0.0], [0.5, 0.5, 0.5], 2),
        # Use alone never asks for more.
        ([1.0, 1.0], [1.0, 1.0], 2),
    ],
)
def test_more_are_wanted_for_what_waits_and_fewer_where_the_others_can_do_it(
    waiting: list[float], busy: list[float], replicas: int
):
    assert wanted(waiting, busy) == replicas


@pytest.mark.parametrize("metrics", [None, {}, {WAITING_S: {}, BUSY: {}}, {WAITING_S: {"a": 9.0}}])
def test_as_long_as_none_has_told_anything_the_number_stays(
    metrics: Mapping[str, Mapping[str, float]] | None,
):
    assert WaitingWork(5.0)(Context(2, 3, metrics)) == (3.0, {})


def test_the_policy_works_where_this_package_is_not_installed():
    policy = AutoscalingPolicy(policy_function=WaitingWork)
    carried = policy.get_serialized_policy_def()
    assert carried
    program = (
        "import sys\n"
        "sys.modules['gad_ray'] = None\n"
        "from types import SimpleNamespace\n"
        "from ray import cloudpickle\n"
        "policy = cloudpickle.loads(sys.stdin.buffer.read())(2.0)\n"
        "told = {'waiting_s': {'a': 5.0}, 'busy': {'a': 1.0}}\n"
        "print(policy(SimpleNamespace(current_num_replicas=1, target_num_replicas=1, aggregated_metrics=told)))"
    )
    done = subprocess.run([sys.executable, "-c", program], input=carried, capture_output=True, timeout=300)
    assert (done.stdout, done.returncode) == (b"(2.5, {})\n", 0), done.stderr.decode()


def test_work_is_told_once_as_a_share_of_the_time_since():
    pace = ScoringPace(100)
    assert pace.take_busy(100.0) == 0.0
    pace.scored(10, 0.5, now=100.5)
    pace.scored(10, 0.25, now=101.0)
    assert pace.take_busy(101.0) == pytest.approx(0.75)
    assert pace.take_busy(102.0) == 0.0
    # A batch that took longer than from one look to the next makes up for the looks at which it was not done.
    pace.scored(10, 3.0, now=105.0)
    assert [pace.take_busy(105.0), pace.take_busy(106.0)] == [pytest.approx(1.0), 0.0]
