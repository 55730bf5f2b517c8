"""Every variant on two ranks, which are processes of their own that talk over gloo, against one by itself."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from gad_ray.learners.collective import LocalCollective
from tests.unit.builders import assert_close, assert_gradients_close
from tests.unit.learners.two_ranks import load, run_rank
from tests.unit.learners.variants import CASES, Played

EACH = pytest.mark.parametrize("case", CASES)


@dataclass(frozen=True)
class Outcomes:
    """What came of each case, on both ranks and on one alone."""

    directory: Path
    alone: dict[str, Played]

    def of_rank(self, rank: int, case: str) -> Played:
        return load(self.directory / f"{list(CASES).index(case)}-of-rank-{rank}")


@pytest.fixture(scope="module")
def outcomes(tied_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """One pair of processes plays all the cases: importing torch takes longer than any of them."""
    out = tmp_path_factory.mktemp("ranks")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    ranks = torch.multiprocessing.spawn(run_rank, args=(2, address, tied_model, out), nprocs=2, join=False)
    alone = {name: play(tied_model, LocalCollective()) for name, play in CASES.items()}
    while not ranks.join():
        pass
    return Outcomes(out, alone)


def test_ranks_listen_on_the_interface_of_their_meeting_place_alone(outcomes: Outcomes):
    for rank in (0, 1):
        assert json.loads((outcomes.directory / f"listening-{rank}.json").read_text()) == ["127.0.0.1"]


@EACH
def test_two_ranks_have_together_the_gradients_of_one(outcomes: Outcomes, case: str):
    alone, together = outcomes.alone[case], outcomes.of_rank(0, case)
    assert len(together.gradients) == len(alone.gradients) > 0
    for found, wanted in zip(together.gradients, alone.gradients, strict=True):
        assert_gradients_close(found, wanted)


@EACH
def test_two_ranks_end_with_the_same_weights_and_those_of_one(outcomes: Outcomes, case: str):
    first, second = (outcomes.of_rank(rank, case).weights for rank in (0, 1))
    assert all(torch.equal(first[name], tensor) for name, tensor in second.items())
    # A weight that no gradient but rounding reaches ends near 0.
    assert_close(first, outcomes.alone[case].weights, relative=1e-5, absolute=1e-6)


@EACH
def test_every_rank_reports_the_whole_batchs_metrics_and_scores(outcomes: Outcomes, case: str):
    alone, first, second = outcomes.alone[case], *(outcomes.of_rank(rank, case) for rank in (0, 1))
    assert (first.figures, first.scores) == (second.figures, second.scores)
    assert first.figures == pytest.approx(alone.figures, rel=1e-3, abs=1e-5)
    assert first.scores == pytest.approx(alone.scores, rel=1e-6, abs=1e-5)
