import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gad_ray.learners.collective import LocalCollective
from tests.unit.builders import assert_close
from tests.unit.learners.two_ranks import CASES, run_cases, run_rank


@dataclass(frozen=True)
class Outcome:
    directory: Path

    def weights(self, case: str) -> dict[str, torch.Tensor]:
        return load_file(self.directory / f"{case}.safetensors")

    def figures(self, case: str) -> dict[str, Any]:
        return json.loads((self.directory / f"{case}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def outcomes(tied_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Outcome, Outcome]:
    """One process by itself, and both of two over gloo."""
    out = tmp_path_factory.mktemp("ranks")
    run_cases(tied_model, out / "alone", LocalCollective())
    torch.multiprocessing.spawn(
        run_rank, args=(2, f"file://{out / 'rendezvous'}", tied_model, out), nprocs=2, join=True
    )
    return Outcome(out / "alone"), Outcome(out / "rank0"), Outcome(out / "rank1")


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_end_with_the_weights_of_one(outcomes: tuple[Outcome, Outcome, Outcome], case: str):
    alone, first, second = (outcome.weights(case) for outcome in outcomes)
    assert all(torch.equal(first[name], tensor) for name, tensor in second.items())
    # Normalised scores do not depend on the head's bias: all that its step is made of is rounding.
    assert_close(first, alone, relative=1e-5, absolute=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_every_rank_reports_the_whole_batchs_metrics_and_scores(
    outcomes: tuple[Outcome, Outcome, Outcome], case: str
):
    alone, first, second = (outcome.figures(case) for outcome in outcomes)
    assert first == second
    assert first["metrics"] == pytest.approx(alone["metrics"], rel=1e-3, abs=1e-5)
    assert first["scores"] == pytest.approx(alone["scores"], rel=1e-6, abs=1e-5)
