"""Fixtures of all tests, and the environment in which Ray is used by them."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.cluster import Cluster
from tests.game import REFILLED, Game, Outcome, SharedRuns
from tests.processes import wait_until_gone

# Before anything imports ray, which reads them once. The token is the tests' own: clusters that other people run
# on this machine do not know it, and no file in the home directory is made.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("RAY_ADDRESS", None)

# A change is judged on the same examples every time; at a desk each run draws new ones.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_configure() -> None:
    """SIGTERM ends the tests as Ctrl-C does: fixtures still take down what they have started."""
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("SIGTERM", returncode=143))


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Cluster]:
    """A Ray cluster on this machine that is there for as long as the tests are."""
    cluster = Cluster()
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def game(ray_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Game]:
    """Runs with tiny models on the tests' cluster; none of their processes may outlive the tests."""
    directory = tmp_path_factory.mktemp("games")
    yield Game(directory, ray_cluster.address)
    wait_until_gone(directory)


@pytest.fixture(scope="session")
def whole_run(shared_runs: SharedRuns) -> Outcome:
    """Both stages from beginning to end, without a break."""
    return shared_runs.play("whole")


@pytest.fixture(scope="session")
def refilled(shared_runs: SharedRuns) -> Outcome:
    """The same with groups refilled, a curriculum, and replay."""
    return shared_runs.play("refilled", *REFILLED)


@pytest.fixture(scope="session")
def soda(shared_runs: SharedRuns) -> Outcome:
    """An offline fit on two ranks, with two responses to a prompt."""
    return shared_runs.play(
        "offline", "fit.soda.responses_per_prompt=2", "policy.group.num_ranks=2", fit="soda"
    )


@pytest.fixture(scope="session")
def shared_runs(game: Game, tmp_path_factory: pytest.TempPathFactory) -> SharedRuns:
    """Runs that several files look at, in whichever process of the tests these are."""
    own = tmp_path_factory.getbasetemp()
    return SharedRuns(game, own.parent if "PYTEST_XDIST_WORKER" in os.environ else own)
