"""The critic's learner under every variant of loss, pooling and batch: splits, checkpoints and exports."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from gad_ray.batch import (
    Example,
    Message,
    PromptBatch,
    Ragged,
    RolloutBatch,
    SamplingSettings,
    StopReason,
    TrainStats,
)
from gad_ray.checkpoint.tensors import load_state, save_state
from gad_ray.config.critic import (
    AdaptiveTemperature,
    BlendPooling,
    BradleyTerryLoss,
    CriticConfig,
    CrossEntropyLoss,
    FixedTemperature,
    LastPooling,
    MeanPooling,
    MixPooling,
    ReplayConfig,
    ScoreReg,
)
from gad_ray.config.models import LoraConfig, ModelConfig, OptimizerConfig
from gad_ray.errors import ModelError
from gad_ray.learners.collective import Collective, LocalCollective
from gad_ray.learners.critic import CriticLearner
from gad_ray.learners.optim import StepResult
from gad_ray.models.critic import CriticModel
from gad_ray.models.pairs import Pair
from gad_ray.observability.metrics import METRICS
from tests.tiny import make_tiny_model

REG = ScoreReg(threshold=0.05, weight=0.1)
SHARP = AdaptiveTemperature(preset="sharp")
FREE = AdaptiveTemperature(a=0.0, b=2.0, lo=0.001, hi=9.0)
LOSSES = {
    "fixed": BradleyTerryLoss(temperature=FixedTemperature(value=0.5), margin=0.2, score_reg=REG),
    "sharp": BradleyTerryLoss(temperature=SHARP, score_reg=REG),
    "free": BradleyTerryLoss(temperature=FREE, margin=-0.1, score_reg=REG),
    "batch_norm": BradleyTerryLoss(temperature=FixedTemperature(value=0.5), batch_norm=True, score_reg=REG),
    "normalised and free": BradleyTerryLoss(temperature=FREE, batch_norm=True, score_reg=REG),
    "cross-entropy": CrossEntropyLoss(temperature=FixedTemperature(value=0.5), score_reg=REG),
    "cross-entropy and free": CrossEntropyLoss(temperature=FREE, score_reg=REG),
}
POOLINGS = {
    "mean": MeanPooling(),
    "last": LastPooling(),
    "blend": BlendPooling(blend_start=0, blend_end=4),
    "mix": MixPooling(),
}
ROWS = (
    ("Why is the sky blue?", "Air scatters blue light more than red.", ("The sky is.", "Blue blue.", "x")),
    ("Write a list of fruits.", "Apples, pears.", ("a list", "Apples, pears.")),
    ("What is 17 times 23?", "It is 391.", ("340", "340", "17 times 23 is what? I do not know it.", "51")),
    ("Hello!", "Hello! How are you today?", ("", "And what about you?")),
)
SMALL = 120  # about two rows


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("variants") / "model")


def prompts_of(step: int, rows: Sequence[Any] = ROWS) -> PromptBatch:
    examples = [
        Example(id=f"e{i}", messages=(Message(role="user", content=prompt),), teacher_response=teacher)
        for i, (prompt, teacher, _) in enumerate(rows)
    ]
    return PromptBatch(step=step, examples=tuple(examples))


def rollouts_of(step: int, rows: Sequence[Any] = ROWS, *, cut: Iterable[int] = ()) -> RolloutBatch:
    """The students' texts; what the critic never looks at is made up."""
    texts = [(f"e{i}", text) for i, (_, _, group) in enumerate(rows) for text in group]
    tokens = Ragged.from_rows([[5]] * len(texts), np.int32)
    cut = set(cut)
    return RolloutBatch(
        step=step,
        example_ids=tuple(name for name, _ in texts),
        texts=tuple(text for _, text in texts),
        prompt_tokens=tokens,
        response_tokens=tokens,
        logprobs=Ragged.from_rows([[-1.0]] * len(texts), np.float32),
        stop_reasons=tuple(StopReason.LENGTH if i in cut else StopReason.STOP for i in range(len(texts))),
        policy_version=0,
        sampling=SamplingSettings(
            num_responses=4, temperature=1.0, top_p=1.0, repetition_penalty=1.0, max_tokens=8, seed=0
        ),
        teacher_lengths=np.ones(len(texts), dtype=np.int32),
    )


def learner_of(directory: Path, *, collective: Collective | None = None, **changed: Any) -> CriticLearner:
    fields: dict[str, Any] = {
        "model": ModelConfig(model=str(directory), compute="float32"),
        "optimizer": OptimizerConfig(lr=1e-3, eps=1e-3, grad_clip=1e6),
        "max_tokens": 512,
    }
    learner = CriticLearner(
        CriticConfig(**{**fields, **changed}),
        seed=0,
        total_steps=10,
        collective=collective or LocalCollective(),
        max_nonfinite_steps=2,
    )
    with torch.no_grad():
        # The fresh head's scores are close to 0: spread them, so that every part of a loss is at work.
        learner.model.head.weight.mul_(30.0)
    return learner


def gradients_of(learner: CriticLearner, update: Callable[[], object]) -> dict[str, Tensor]:
    """What an update hands to the optimiser, before it is added up over ranks."""
    found: dict[str, Tensor] = {}

    def record(loss: float) -> StepResult:
        found.update({n: p.grad.clone() for n, p in learner.model.named_parameters() if p.grad is not None})
        return StepResult(grad_norm=0.0, grad_norm_before_clip=0.0, lr=0.0, skipped=False)

    learner.optimizer.step = record  # type: ignore[method-assign]
    update()
    return found


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor], relative: float = 1e-5) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        gap, size = float((found[name] - tensor).norm()), float(tensor.norm())
        # What cancels to nothing (the head's bias under a loss of differences) is as exact as its parts.
        assert gap <= relative * max(size, 1e-2), f"{name}: {gap} of {size}"


# -- splits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("budget", [1, SMALL])
def test_micro_batches_give_the_gradient_and_the_figures_of_the_whole_batch(
    model: Path, name: str, budget: int
) -> None:
    found: list[dict[str, Tensor]] = []
    figures: list[dict[str, float]] = []
    for tokens in (16384, budget):
        learner = learner_of(model, loss=LOSSES[name], micro_batch_tokens=tokens, truncated="exclude")
        stats: list[TrainStats] = []
        rollouts = rollouts_of(1, cut=[1, 3, 4])
        found.append(
            gradients_of(
                learner,
                lambda learner=learner, rollouts=rollouts, stats=stats: stats.append(
                    learner.judge(prompts_of(1), rollouts)[1]
                ),
            )
        )
        figures.append({k: v for k, v in stats[0].metrics.items() if not k.startswith("timing_s/")})
    assert any(float(g.norm()) > 1e-2 for g in found[0].values())
    assert_close(found[1], found[0])
    assert figures[1] == pytest.approx(figures[0], rel=1e-4, abs=1e-6)


class Threads:
    """Ranks as threads of this process, which meet at a barrier."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size, timeout=60)
        self.boxes: list[Any] = [None] * size

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self.boxes[rank] = value
        self.barrier.wait()
        everything = list(self.boxes)
        self.barrier.wait()
        return everything


class ThreadCollective:
    """One of them."""

    def __init__(self, threads: Threads, rank: int) -> None:
        self._threads = threads
        self.rank = rank
        self.size = threads.size

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        own = list(tensors)
        all_ranks = self._threads.exchange(self.rank, [t.clone() for t in own])
        for i, tensor in enumerate(own):
            tensor.copy_(sum(parts[i] for parts in all_ranks))

    def gather(self, array: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return self._threads.exchange(self.rank, array)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("name", LOSSES)
def test_two_ranks_have_together_the_gradient_of_one(model: Path, name: str) -> None:
    changed: dict[str, Any] = {
        "loss": LOSSES[name],
        "micro_batch_tokens": SMALL,
        "truncated": "exclude",
        "replay": ReplayConfig(size=8, ratio=0.5),
    }
    # The second prompt's responses are all cut: the rank that holds it has less to learn from.
    cut = [3, 4]

    def play(learner: CriticLearner) -> tuple[dict[str, Tensor], NDArray[np.float32]]:
        learner.judge(prompts_of(1), rollouts_of(1, cut=cut))
        scores: list[NDArray[np.float32]] = []
        found = gradients_of(
            learner, lambda: scores.append(learner.judge(prompts_of(2), rollouts_of(2, cut=cut))[0].student)
        )
        return found, scores[0]

    wanted, scores = play(learner_of(model, **changed))
    threads = Threads(2)
    results: dict[int, tuple[dict[str, Tensor], NDArray[np.float32]]] = {}

    # Made one after the other: transformers changes its own classes while it loads a model.
    learners = [
        learner_of(model, collective=ThreadCollective(threads, number), **changed) for number in range(2)
    ]

    def rank(number: int) -> None:
        results[number] = play(learners[number])

    workers = [threading.Thread(target=rank, args=(number,)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(results) == [0, 1]
    assert_close({n: results[0][0][n] + results[1][0][n] for n in wanted}, wanted, relative=1e-4)
    for number in range(2):
        np.testing.assert_allclose(results[number][1], scores, atol=1e-5, rtol=0)


# -- figures -----------------------------------------------------------------------------------------


def test_an_adaptive_temperature_is_logged_exported_and_resumed(model: Path, tmp_path: Path) -> None:
    learner = learner_of(model, loss=LOSSES["free"])
    scores, stats = learner.judge(prompts_of(1), rollouts_of(1))
    tau = 2.0 * float(np.abs(scores.teacher - scores.student).mean())
    assert stats.metrics["critic/temperature"] == pytest.approx(tau, rel=1e-5)
    learner.export(tmp_path / "critic")
    assert f'"temperature": {tau:.4f}'[:-1] in (tmp_path / "critic" / "critic.json").read_text()
    tensors, plain = learner.state()
    second = learner_of(model, loss=LOSSES["free"])
    second.load_state({name: t.clone() for name, t in tensors.items()}, plain)
    assert second.state()[1] == plain


def test_the_sigmoid_under_cross_entropy_is_how_sure_of_the_right_side_the_critic_is(model: Path) -> None:
    scores, stats = learner_of(model, loss=LOSSES["cross-entropy"]).judge(prompts_of(1), rollouts_of(1))
    firsts = [0, 3, 5, 9]
    right = np.concatenate([scores.teacher[firsts], -scores.student]).astype(np.float64) / 0.5
    assert stats.metrics["critic/sigmoid_mean"] == pytest.approx(
        float((1 / (1 + np.exp(-right))).mean()), rel=1e-5
    )
    wanted = np.log1p(np.exp(-right[:4])).mean() + np.log1p(np.exp(-right[4:])).mean()
    assert stats.metrics["critic/ranking_loss"] == pytest.approx(float(wanted), rel=1e-5)


def test_every_figure_of_every_variant_is_registered(model: Path) -> None:
    for loss in LOSSES.values():
        learner = learner_of(model, loss=loss, truncated="exclude", replay=ReplayConfig(size=9))
        for step in (1, 2):
            _, stats = learner.judge(prompts_of(step), rollouts_of(step, cut=[0]))
            assert set(stats.metrics) <= set(METRICS)


# -- truncated responses -----------------------------------------------------------------------------


def test_excluded_responses_are_scored_and_counted_but_not_learned_from(model: Path) -> None:
    cut = [1, 3, 4]  # of the second prompt, both
    learner = learner_of(model, loss=LOSSES["fixed"], truncated="exclude")
    rollouts = rollouts_of(1, cut=cut)
    before = learner.score_batch(prompts_of(1), rollouts)
    results: list[Any] = []
    found = gradients_of(learner, lambda: results.append(learner.judge(prompts_of(1), rollouts)))
    scores, stats = results[0]
    np.testing.assert_allclose(scores.student, before.student, atol=1e-6, rtol=0)
    assert stats.metrics["critic/truncated_excluded"] == 3.0

    left = [
        (prompt, teacher, tuple(text for i, text in enumerate(group) if offset + i not in cut))
        for offset, (prompt, teacher, group) in zip((0, 3, 5, 9), ROWS, strict=True)
    ]
    left = [row for row in left if row[2]]
    without = learner_of(model, loss=LOSSES["fixed"])
    wanted = gradients_of(without, lambda: without.judge(prompts_of(1, left), rollouts_of(1, left)))
    assert_close(found, wanted)


def test_a_step_whose_responses_were_all_cut_changes_nothing(model: Path) -> None:
    learner = learner_of(model, truncated="exclude", replay=ReplayConfig())
    before = learner.fingerprint()
    scores, stats = learner.judge(prompts_of(1), rollouts_of(1, cut=range(11)))
    assert (len(scores), stats.num_steps, stats.num_skipped, learner.version) == (11, 0, 0, 0)
    assert learner.fingerprint() == before
    assert stats.metrics["critic/truncated_excluded"] == 11.0
    assert stats.metrics["critic/replay_size"] == 0.0
    assert "critic/d_acc" in stats.metrics
    assert "critic/d_loss" not in stats.metrics


# -- pooling -----------------------------------------------------------------------------------------


def pairs_of(rows: Sequence[Any] = ROWS) -> list[Pair]:
    return [
        Pair((Message(role="user", content=prompt),), text)
        for prompt, teacher, group in rows
        for text in (teacher, *group)
    ]


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, alpha=4.0)])
def test_packed_pairs_score_as_padded_ones(model: Path, name: str, lora: LoraConfig | None) -> None:
    config = ModelConfig(model=str(model), compute="float32", lora=lora)
    padded, packed = (
        learner_of(model, model=config, pooling=POOLINGS[name], packing=packing) for packing in (False, True)
    )
    for learner in (padded, packed):
        learner.model.updates = 3
    wanted = padded.score(pairs_of())
    assert len(set(wanted.tolist())) > 10
    np.testing.assert_allclose(packed.score(pairs_of()), wanted, atol=1e-5, rtol=0)
    alone = [float(packed.score([pair])[0]) for pair in pairs_of()]
    np.testing.assert_allclose(alone, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_packing_does_not_change_the_gradient(model: Path, checkpointing: bool) -> None:
    config = ModelConfig(model=str(model), compute="float32", gradient_checkpointing=checkpointing)
    found: list[dict[str, Tensor]] = []
    for packing in (False, True):
        learner = learner_of(
            model, model=config, packing=packing, loss=LOSSES["sharp"], micro_batch_tokens=250
        )
        found.append(
            gradients_of(learner, lambda learner=learner: learner.judge(prompts_of(1), rollouts_of(1)))
        )
    assert_close(found[1], found[0])


def test_a_blend_moves_with_the_updates_and_is_exported_as_it_stands(model: Path, tmp_path: Path) -> None:
    learner = learner_of(model, pooling=POOLINGS["blend"])
    prints = [learner.fingerprint()]
    for step in (1, 2):
        learner.judge(prompts_of(step), rollouts_of(step))
        prints.append(learner.fingerprint())
    assert len({p.pooling for p in prints}) == 3
    # Two of four steps: half of the mean and half of the last.
    scores = learner.score(pairs_of())
    parts = []
    for pooling in (MeanPooling(), LastPooling()):
        learner.model.pooling = pooling
        parts.append(learner.score(pairs_of()))
    learner.model.pooling = POOLINGS["blend"]
    np.testing.assert_allclose(scores, 0.5 * parts[0] + 0.5 * parts[1], atol=1e-6, rtol=0)

    learner.export(tmp_path / "critic")
    loaded = CriticModel.load(tmp_path / "critic")
    assert loaded.fingerprint() == prints[-1]
    assert loaded.score(pairs_of(), micro_batch_tokens=16384).tolist() == scores.tolist()
    meta = tmp_path / "critic" / "critic.json"
    meta.write_text(meta.read_text().replace('"updates": 2', '"updates": 3'))
    with pytest.raises(ModelError, match="pooling"):
        CriticModel.load(tmp_path / "critic")


@pytest.mark.parametrize("name", ["last", "mix"])
def test_an_exported_critic_pools_as_the_learner_does(model: Path, tmp_path: Path, name: str) -> None:
    learner = learner_of(model, pooling=POOLINGS[name])
    learner.judge(prompts_of(1), rollouts_of(1))
    learner.export(tmp_path / "critic")
    loaded = CriticModel.load(tmp_path / "critic")
    assert loaded.score(pairs_of(), micro_batch_tokens=16384).tolist() == learner.score(pairs_of()).tolist()


# -- replay ------------------------------------------------------------------------------------------


def varied(step: int) -> list[Any]:
    """Rows whose responses are another step's own."""
    return [(prompt, teacher, tuple(f"{text} {step}" for text in group)) for prompt, teacher, group in ROWS]


def test_replayed_responses_enter_the_gradient_and_no_figure(model: Path) -> None:
    loss = LOSSES["free"]
    plain = learner_of(model, loss=loss)
    replaying = learner_of(model, loss=loss, replay=ReplayConfig(size=100, ratio=0.5))
    for learner in (plain, replaying):
        learner.judge(prompts_of(1, varied(1)), rollouts_of(1, varied(1)))
    results: list[Any] = []
    gradients = [
        gradients_of(
            learner,
            lambda learner=learner: results.append(
                learner.judge(prompts_of(2, varied(2)), rollouts_of(2, varied(2)))
            ),
        )
        for learner in (plain, replaying)
    ]
    (scores, stats), (replay_scores, replay_stats) = results
    assert any(float((gradients[1][n] - g).norm()) > 1e-3 for n, g in gradients[0].items())
    np.testing.assert_allclose(replay_scores.student, scores.student, atol=1e-5, rtol=0)
    own = {"critic/replay_size": 22.0, "critic/replay_age": 1.0}
    logged = {k: v for k, v in replay_stats.metrics.items() if not k.startswith(("timing_s/", "critic/grad"))}
    wanted = {k: v for k, v in stats.metrics.items() if not k.startswith(("timing_s/", "critic/grad"))}
    assert logged == pytest.approx({**wanted, **own}, rel=1e-4, abs=1e-6)


def test_the_batch_with_replay_is_that_of_fresh_and_past_responses_together(model: Path) -> None:
    """At a ratio of one half, all of the step before is drawn: two steps' rows in one batch."""
    learner = learner_of(model, loss=LOSSES["fixed"], replay=ReplayConfig(size=100, ratio=0.5))
    gradients_of(learner, lambda: learner.judge(prompts_of(1, varied(1)), rollouts_of(1, varied(1))))
    learner.optimizer.zero_grad()
    found = gradients_of(learner, lambda: learner.judge(prompts_of(2, varied(2)), rollouts_of(2, varied(2))))
    both = [*varied(2), *varied(1)]
    plain = learner_of(model, loss=LOSSES["fixed"])
    wanted = gradients_of(plain, lambda: plain.judge(prompts_of(1, both), rollouts_of(1, both)))
    assert_close(found, wanted)


def test_a_critic_with_replay_resumes_bit_for_bit_from_its_file(model: Path, tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "loss": LOSSES["sharp"],
        "pooling": POOLINGS["blend"],
        "replay": ReplayConfig(size=15, ratio=0.4, max_age=3),
    }
    first = learner_of(model, **config)
    for step in (1, 2):
        first.judge(prompts_of(step, varied(step)), rollouts_of(step, varied(step)))
    save_state(tmp_path / "state", *first.state())
    second = learner_of(model, **config)
    second.load_state(*load_state(tmp_path / "state"))
    assert second.fingerprint() == first.fingerprint()
    for step in (3, 4):
        one, other = (
            learner.judge(prompts_of(step, varied(step)), rollouts_of(step, varied(step)))
            for learner in (first, second)
        )
        assert one[0].student.tolist() == other[0].student.tolist()
        assert {k: v for k, v in one[1].metrics.items() if not k.startswith("timing_s/")} == {
            k: v for k, v in other[1].metrics.items() if not k.startswith("timing_s/")
        }
    assert second.fingerprint() == first.fingerprint()
