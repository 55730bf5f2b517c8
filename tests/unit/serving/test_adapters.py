import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gad_ray.client.schema import ScoreRequest
from gad_ray.config.endpoint import BatchSettings, Limits
from gad_ray.errors import GadError
from gad_ray.learners.critic import CriticLearner
from gad_ray.models.adapter import adapter_in, load_adapter
from gad_ray.models.critic import CriticModel
from gad_ray.models.critic_export import load_critic
from gad_ray.models.fingerprint import hash_tensors
from gad_ray.models.load import load_backbone
from gad_ray.models.lora import SharedBackbone
from gad_ray.serving.application.adapters import AdapterPool
from gad_ray.serving.application.batcher import Batcher
from gad_ray.serving.application.errors import ApiError
from gad_ray.serving.application.forward_pool import Passes
from gad_ray.serving.application.loaded_critic import ServedCritic
from gad_ray.serving.application.service import ScoringService
from tests.unit.builders import PROMPTS, STUDENT, TEACHER, pair
from tests.unit.serving.damage import SPOILED
from tests.unit.serving.lora import make_lora_learner

T = TypeVar("T")
TEXTS = [(p, r) for p, t, s in zip(PROMPTS, TEACHER, STUDENT, strict=True) for r in (t, *s)]
PAIRS = [pair(p, r) for p, r in TEXTS]
NAMES = ("law", "code", "care")


@dataclass
class Told:
    results: list[str] = field(default_factory=list)

    def adapter_done(self, *, result: str) -> None:
        self.results.append(result)


@pytest.fixture(scope="module")
def learners(tied_model: Path) -> dict[str, CriticLearner]:
    return {name: make_lora_learner(tied_model, seed=i) for i, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def exports(learners: dict[str, CriticLearner], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What runs with LoRA leave behind: critics with their adapters merged, and beside that the adapters."""
    root = tmp_path_factory.mktemp("lora")
    for name, learner in learners.items():
        learner.export(root / name)
    return {name: root / name for name in learners}


def request(model: str | None = None, **fields: Any) -> ScoreRequest:
    queries, documents = [list(side) for side in zip(*TEXTS, strict=True)]
    return ScoreRequest.model_validate({"queries": queries, "documents": documents, "model": model, **fields})


def use(
    served: ServedCritic,
    directories: dict[str, Path],
    call: Callable[[ScoringService, AdapterPool], Awaitable[T]],
    *,
    backbone: str | None = None,
    max_loaded: int = 8,
    told: Told | None = None,
    passes_at_once: int = 1,
) -> T:
    async def run() -> T:
        pool = AdapterPool(directories, backbone=backbone, max_loaded=max_loaded, watcher=told)
        pool.use(served)
        batcher = Batcher(
            BatchSettings(max_batch_tokens=300),
            max_queued_tokens=10**6,
            max_queued_requests=1000,
            passes=Passes(passes_at_once),
        )
        service = ScoringService(served, name="critic", limits=Limits(), batcher=batcher, adapters=pool)
        try:
            return await call(service, pool)
        finally:
            await service.close()

    return asyncio.run(run())


async def scores(service: ScoringService, model: str | None) -> list[float]:
    return [item.score for item in (await service.score(request(model))).data]


async def refusal(service: ScoringService, model: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await service.score(request(model))
    return caught.value


# --- The adapter


def test_on_a_shared_backbone_a_critic_scores_as_in_its_training_to_the_last_bit(
    learners: dict[str, CriticLearner], exports: dict[str, Path], tied_model: Path
):
    shared = SharedBackbone(load_backbone(tied_model, dtype=torch.float32), dtype=torch.float32)
    for name, learner in learners.items():
        critic, facts = load_adapter(adapter_in(exports[name]), shared)
        found = critic.score(PAIRS, micro_batch_tokens=500)
        assert found.tolist() == learner.model.score(PAIRS, micro_batch_tokens=500).tolist()
        merged = load_critic(exports[name])
        np.testing.assert_allclose(found, merged.score(PAIRS, micro_batch_tokens=500), atol=1e-5, rtol=0)
        assert critic.fingerprint() == merged.fingerprint() == facts.fingerprint == learner.fingerprint()
        assert hash_tensors(critic.state()) == facts.fingerprint.weights
        assert sum(weight.numel() for weight in critic.parameters()) < 10_000, "the backbone is not its own"


def test_whoever_else_uses_the_backbone_sees_no_change(
    served: ServedCritic, critic: CriticModel, exports: dict[str, Path]
):
    before = critic.score(PAIRS, micro_batch_tokens=500)

    async def call(service: ScoringService, pool: AdapterPool) -> list[list[float]]:
        return [await scores(service, model) for model in ("law", None, "code", None)]

    law, first, code, second = use(served, exports, call)
    assert first == second
    assert len({tuple(law), tuple(first), tuple(code)}) == 3
    assert critic.score(PAIRS, micro_batch_tokens=500).tolist() == before.tolist()


def test_a_critic_without_lora_has_no_adapter(critic_dir: Path):
    assert adapter_in(critic_dir) == critic_dir


# --- The service


@pytest.mark.parametrize("passes_at_once", [1, 2])
def test_each_model_scores_as_alone_whatever_others_are_asked_for_at_the_same_time(
    served: ServedCritic, critic: CriticModel, exports: dict[str, Path], passes_at_once: int
):
    wanted: dict[str | None, Any] = {
        name: load_critic(path).score(PAIRS, micro_batch_tokens=500) for name, path in exports.items()
    }
    wanted[None] = critic.score(PAIRS, micro_batch_tokens=500)
    models = [*wanted] * 4

    async def call(service: ScoringService, pool: AdapterPool) -> list[list[float]]:
        return await asyncio.gather(*[scores(service, model) for model in models])

    found = use(served, exports, call, passes_at_once=passes_at_once)
    for model, one in zip(models, found, strict=True):
        np.testing.assert_allclose(one, wanted[model], atol=1e-5, rtol=0)


def test_every_model_is_listed_and_answers_to_its_name_and_its_fingerprint(
    served: ServedCritic, exports: dict[str, Path], learners: dict[str, CriticLearner]
):
    async def call(service: ScoringService, pool: AdapterPool) -> None:
        listed = {card.id: card.model_version.fingerprint for card in service.models().data}
        prints = {name: learner.fingerprint().digest for name, learner in learners.items()}
        assert listed == {"critic": served.fingerprint, **prints}
        assert pool.loaded == []
        by_name = await service.score(request("code"))
        assert (by_name.model, by_name.model_version.fingerprint) == ("code", prints["code"])
        for wanted in (prints["code"], prints["code"][:16]):
            assert (await service.score(request(wanted))).data == by_name.data
        assert (await service.score(request())).model == "critic"
        error = await refusal(service, "elsewhere")
        assert (error.status, error.code) == (404, "model_not_found")

    use(served, exports, call)


def test_so_many_adapters_are_in_memory_and_the_one_not_asked_for_longest_makes_room(
    served: ServedCritic, exports: dict[str, Path]
):
    told = Told()

    async def call(service: ScoringService, pool: AdapterPool) -> None:
        first = await scores(service, "law")
        await scores(service, "code")
        await scores(service, "law")
        await scores(service, "care")
        assert pool.loaded == ["law", "care"]
        assert told.results == ["loaded", "loaded", "loaded", "evicted"]
        await scores(service, "code")
        assert pool.loaded == ["care", "code"]
        assert await scores(service, "law") == first

    use(served, exports, call, max_loaded=2, told=told)


def spoil(directory: Path, how: str) -> None:
    weights, meta = directory / "adapter_model.safetensors", directory / "adapter.json"
    if how in SPOILED:
        SPOILED[how](meta if how == "no JSON" else weights)
    elif how == "no weights":
        weights.unlink()
    elif how == "another kind":
        config = directory / "adapter_config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "use_rslora": True}))
    elif how == "other pooling":
        told = json.loads(meta.read_text())
        meta.write_text(json.dumps({**told, "pooling": {"name": "last"}}))
    elif how == "other head":
        tensors = load_file(directory / "head.safetensors")
        save_file({**tensors, "weight": tensors["weight"] + 1}, directory / "head.safetensors")
    elif how == "halved ranks":
        tensors = load_file(weights)
        tensors = {name: t[:2] if ".lora_A." in name else t for name, t in tensors.items()}
        save_file(tensors, weights)
        meta.write_text(json.dumps({**json.loads(meta.read_text()), "adapter": hash_tensors(tensors)}))
    else:
        shutil.rmtree(directory)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("flipped bit", "weights are not those it was exported with"),
        ("cut file", "cannot be read"),
        ("no JSON", "cannot be read"),
        ("no weights", "cannot be read"),
        ("another kind", "use_rslora = True"),
        ("other pooling", "its pooling"),
        ("other head", "its head"),
        ("halved ranks", "no pairs of low rank"),
        ("gone", "cannot be read"),
    ],
)
def test_a_bad_adapter_is_refused_with_the_reason_once_and_all_others_go_on(
    served: ServedCritic, exports: dict[str, Path], tmp_path: Path, how: str, told: str
):
    place = tmp_path / "bad"
    shutil.copytree(adapter_in(exports["law"]), place)
    spoil(place, how)
    watcher = Told()

    async def call(service: ScoringService, pool: AdapterPool) -> None:
        for _ in range(3):
            error = await refusal(service, "bad")
            assert (error.status, error.code, error.param) == (404, "model_refused", "model")
            assert told in error.message
            assert str(tmp_path) not in error.message
        assert watcher.results == ["refused"], "it is not tried again as long as it is the same"
        await scores(service, None)
        good = await scores(service, "code")
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(adapter_in(exports["code"]), place)
        (place / "adapter.json").touch()
        assert await scores(service, "bad") == good, "mended, it is served"

    use(served, {"bad": place, "code": exports["code"]}, call, told=watcher)


def test_an_adapter_of_another_backbone_is_refused(
    served: ServedCritic, untied_model: Path, exports: dict[str, Path], tmp_path: Path
):
    make_lora_learner(untied_model, seed=9).export(tmp_path / "foreign")

    async def call(service: ScoringService, pool: AdapterPool) -> None:
        error = await refusal(service, "foreign")
        assert error.code == "model_refused"
        assert "was trained on another backbone" in error.message
        assert len(await scores(service, "law")) == len(TEXTS)

    use(served, {"foreign": tmp_path / "foreign", "law": exports["law"]}, call)


def test_layers_that_the_backbone_does_not_have_are_named(tied_model: Path, exports: dict[str, Path]):
    shared = SharedBackbone(load_backbone(tied_model, dtype=torch.float32), dtype=torch.float32)
    critic, _ = load_adapter(adapter_in(exports["law"]), shared)
    weights: Any = critic.backbone.weights
    shared.module.layers[1].self_attn.q_proj = torch.nn.Linear(16, 16)  # type: ignore[union-attr, index]
    with pytest.raises(GadError, match=r"layers.1.self_attn.q_proj of shape \(32, 32\)"):
        shared.check(weights)


def test_a_changed_adapter_takes_over_and_a_bad_change_does_not(
    served: ServedCritic, exports: dict[str, Path], tmp_path: Path
):
    place = tmp_path / "live"
    shutil.copytree(exports["law"], place)
    told = Told()

    async def call(service: ScoringService, pool: AdapterPool) -> list[str]:
        found: list[str] = []

        async def note() -> None:
            found.append((await service.score(request("live"))).model_version.fingerprint)

        await note()
        shutil.copytree(exports["code"], place, dirs_exist_ok=True)
        (place / "adapter" / "adapter.json").touch()
        await note()
        spoil(place / "adapter", "flipped bit")
        (place / "adapter" / "adapter.json").touch()
        await note()
        await note()
        return found

    law, code, after, again = use(served, {"live": place}, call, told=told)
    assert law != code
    assert code == after == again
    assert told.results == ["loaded", "loaded", "refused"]


def test_the_backbone_can_be_named_and_the_critic_itself_be_an_adapter_on_it(
    tied_model: Path, untied_model: Path, exports: dict[str, Path], critic_dir: Path
):
    def pool(backbone: Path | None) -> AdapterPool:
        named = None if backbone is None else str(backbone)
        return AdapterPool({}, backbone=named, max_loaded=2)

    named = pool(tied_model)
    law, code = (named.load_critic(ServedCritic.load, adapter_in(exports[name])) for name in ("law", "code"))
    assert law.model.backbone.shared is code.model.backbone.shared  # type: ignore[union-attr]
    assert law.end_to_end
    assert code.end_to_end
    assert law.fingerprint == load_critic(exports["law"]).fingerprint().digest
    # A whole critic brings its own.
    assert named.load_critic(ServedCritic.load, critic_dir).model is not law.model
    with pytest.raises(GadError, match="another backbone"):
        pool(untied_model).open(exports["law"])
    with pytest.raises(GadError, match="--backbone"):
        pool(None).open(exports["law"])
