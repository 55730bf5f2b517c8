import asyncio
import shutil
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from safetensors.torch import load_file, save_file

from gad_ray.client.schema import ScoreRequest
from gad_ray.config.endpoint import BatchSettings, Limits
from gad_ray.models.critic_export import load_critic
from gad_ray.serving.application.batcher import Batcher
from gad_ray.serving.application.loaded_critic import ServedCritic
from gad_ray.serving.application.service import ScoringService
from gad_ray.serving.application.versions import Versions
from tests.unit.builders import PROMPTS, TEACHER, pair
from tests.unit.serving.conftest import make_learner
from tests.unit.serving.damage import SPOILED

T = TypeVar("T")
ASKED = ScoreRequest(queries=PROMPTS[0], documents=[TEACHER[0], "No."])


@pytest.fixture(scope="module")
def others(tied_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two more critics, each with a head of its own."""
    directory = tmp_path_factory.mktemp("others")
    for seed in (1, 2):
        make_learner(tied_model, seed=seed).export(directory / str(seed))
    return [directory / "1", directory / "2"]


class Told:
    def __init__(self) -> None:
        self.swaps: list[bool] = []
        self.served: list[str] = []

    def version_served(self, *, fingerprint: str, step: int) -> None:
        self.served.append(fingerprint)

    def swap_done(self, *, accepted: bool) -> None:
        self.swaps.append(accepted)


def use(
    served: ServedCritic,
    call: Callable[[ScoringService, Versions], Awaitable[T]],
    *,
    load: Callable[[Path], ServedCritic] = ServedCritic.load,
    keep: int = 1,
    told: Told | None = None,
) -> T:
    async def run() -> T:
        limits = Limits()
        batcher = Batcher(BatchSettings(), max_queued_tokens=10**6, max_queued_requests=1000)
        service = ScoringService(served, name="critic", limits=limits, batcher=batcher)
        try:
            return await call(service, Versions(service, load=load, keep=keep, watcher=told))
        finally:
            await service.close()

    return asyncio.run(run())


def scores_of(directory: Path) -> list[float]:
    pairs = [pair(PROMPTS[0], TEACHER[0]), pair(PROMPTS[0], "No.")]
    return load_critic(directory).score(pairs, micro_batch_tokens=8192).tolist()


def test_every_request_during_swaps_is_answered_with_the_scores_of_the_critic_it_names(
    served: ServedCritic, others: list[Path], critic_dir: Path
):
    wanted = {load_critic(path).fingerprint().digest: scores_of(path) for path in (critic_dir, *others)}

    async def call(service: ScoringService, versions: Versions) -> list[tuple[str, list[float]]]:
        found: list[tuple[str, list[float]]] = []
        ended = False

        async def keep_asking() -> None:
            while not ended:
                answer = await service.score(ASKED)
                found.append((answer.model_version.fingerprint, [item.score for item in answer.data]))

        asking = [asyncio.get_running_loop().create_task(keep_asking()) for _ in range(4)]
        for path in (*others, critic_dir, *others):
            before = len(found)
            assert await versions.serve(str(path))
            while len(found) < before + 8:
                await asyncio.sleep(0)
        ended = True
        await asyncio.gather(*asking)
        return found

    found = use(served, call)
    assert {fingerprint for fingerprint, _ in found} == set(wanted)
    for fingerprint, scores in found:
        assert scores == pytest.approx(wanted[fingerprint], abs=1e-5)


def test_the_old_critic_answers_until_the_new_one_is_ready(served: ServedCritic, others: list[Path]):
    begun, go_on = threading.Event(), threading.Event()

    def slowly(path: Path) -> ServedCritic:
        begun.set()
        assert go_on.wait(30)
        return ServedCritic.load(path)

    async def call(service: ScoringService, versions: Versions) -> list[str]:
        swapping = asyncio.get_running_loop().create_task(versions.serve(str(others[0])))
        await asyncio.to_thread(begun.wait, 30)
        before = (await service.score(ASKED)).model_version.fingerprint
        go_on.set()
        await swapping
        return [before, (await service.score(ASKED)).model_version.fingerprint]

    before, after = use(served, call, load=slowly)
    assert before == served.fingerprint
    assert after == load_critic(others[0]).fingerprint().digest


def spoil(directory: Path, how: str) -> None:
    if how in SPOILED:
        SPOILED[how](directory / ("critic.json" if how == "no JSON" else "model.safetensors"))
    elif how == "broken head":
        (directory / "head.safetensors").write_bytes(b"no tensors")
    elif how == "gone":
        shutil.rmtree(directory)
    else:
        tensors = load_file(directory / "head.safetensors")
        tensors["weight"][0] = torch.inf
        save_file(tensors, directory / "head.safetensors")


@pytest.mark.parametrize(
    "how", ["flipped bit", "cut file", "broken head", "gone", "no JSON", "infinite weight"]
)
def test_a_bad_critic_is_refused_and_told_and_the_old_one_goes_on(
    served: ServedCritic, others: list[Path], tmp_path: Path, how: str
):
    bad = tmp_path / "bad"
    shutil.copytree(others[0], bad)
    spoil(bad, how)
    told = Told()

    async def call(service: ScoringService, versions: Versions) -> str:
        assert not await versions.serve(str(bad))
        assert versions.refused is not None
        assert str(bad) in versions.refused
        found = (await service.score(ASKED)).model_version.fingerprint
        assert await versions.serve(str(others[1]))
        assert versions.refused is None
        return found

    assert use(served, call, told=told) == served.fingerprint
    assert told.swaps == [False, True]


def test_a_critic_whose_weights_are_not_finite_is_refused_even_if_it_is_what_was_exported(
    served: ServedCritic, tied_model: Path, tmp_path: Path
):
    learner = make_learner(tied_model)
    with torch.no_grad():
        learner.model.head.weight.fill_(torch.nan)
    learner.export(tmp_path / "nan")

    async def call(service: ScoringService, versions: Versions) -> None:
        assert not await versions.serve(str(tmp_path / "nan"))
        assert "not finite" in str(versions.refused)

    use(served, call)


def test_an_earlier_critic_comes_back_by_its_name_without_being_loaded(
    served: ServedCritic, others: list[Path]
):
    loads: list[Path] = []

    def load(path: Path) -> ServedCritic:
        loads.append(path)
        return ServedCritic.load(path)

    async def call(service: ScoringService, versions: Versions) -> None:
        assert await versions.serve(str(others[0]))
        assert await versions.serve(served.fingerprint[:16])
        assert service.critic is served
        assert loads == [others[0]]
        # One earlier critic is kept, and no more.
        assert await versions.serve(str(others[1]))
        assert len(versions.kept) == 2
        assert not await versions.serve(load_critic(others[0]).fingerprint().digest)
        assert service.critic.fingerprint == versions.kept[-1]

    use(served, call, load=load)


def test_the_critic_that_is_served_already_is_no_swap(served: ServedCritic, critic_dir: Path):
    told = Told()

    async def call(service: ScoringService, versions: Versions) -> None:
        assert await versions.serve(str(critic_dir))
        assert service.critic is served

    use(served, call, told=told)
    assert told.swaps == []
