"""What ranks must agree on, with two learners in two threads of this process."""

import threading
from collections.abc import Callable, Iterable
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
    ScoreBatch,
    StopReason,
)
from gad_ray.config.models import ModelConfig, OptimizerConfig
from gad_ray.config.policy import (
    AdaptiveKl,
    CispoLoss,
    DrGrpoAdvantage,
    GrpoAdvantage,
    KlConfig,
    PolicyConfig,
    ReinforcePpAdvantage,
    RejectedImportance,
)
from gad_ray.config.reward import LengthWindow, RewardConfig
from gad_ray.learners.collective import Collective, LocalCollective
from gad_ray.learners.policy import PolicyLearner
from gad_ray.models.chat import load_chat_format
from tests.tiny import make_tiny_model

TEXTS = (
    "Hello!",
    "And what about you? And what about you?",
    "I am fine",
    "No",
    "340 or 341",
    "The sky is blue.",
)
SCORES = [1.0, 3.0, 0.5, 0.5, 2.0, -2.0]


class Meeting:
    """Where the threads leave what they say to each other."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=60)
        self.said: list[Any] = [None] * size


class ThreadCollective:
    def __init__(self, meeting: Meeting, rank: int) -> None:
        self._meeting = meeting
        self.rank = rank
        self.size = len(meeting.said)

    def _exchange(self, said: Any) -> list[Any]:
        self._meeting.said[self.rank] = said
        self._meeting.barrier.wait()
        heard = list(self._meeting.said)
        self._meeting.barrier.wait()
        return heard

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        mine = list(tensors)
        heard = self._exchange([t.clone() for t in mine])
        for i, tensor in enumerate(mine):
            tensor.copy_(torch.stack([said[i] for said in heard]).sum(0))

    def gather(self, array: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return self._exchange(array.copy())

    def close(self) -> None: ...


def on_two_ranks(
    make: Callable[[Collective], PolicyLearner], work: Callable[[PolicyLearner], Any]
) -> list[Any]:
    meeting, results, errors = Meeting(2), [None, None], []
    # Models are made one after the other: their making changes torch for the whole process.
    learners = [make(ThreadCollective(meeting, rank)) for rank in range(2)]

    def run(rank: int) -> None:
        try:
            results[rank] = work(learners[rank])
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            errors.append(error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("ranks") / "model")


@pytest.fixture(scope="module")
def batch(directory: Path) -> tuple[RolloutBatch, ScoreBatch, PromptBatch]:
    """Three prompts of two responses; the second prompt's are scored alike."""
    chat = load_chat_format(directory)
    examples = tuple(
        Example(id=f"e{i}", messages=(Message(role="user", content=f"Say {i}."),), teacher_response="Yes")
        for i in range(3)
    )
    owners = [example for example in examples for _ in range(2)]
    responses = [[*chat.response_ids(text), chat.end_of_turn_id] for text in TEXTS]
    rollouts = RolloutBatch(
        step=1,
        example_ids=tuple(e.id for e in owners),
        texts=TEXTS,
        prompt_tokens=Ragged.from_rows([chat.prompt_ids(e.messages) for e in owners], np.int32),
        response_tokens=Ragged.from_rows(responses, np.int32),
        logprobs=Ragged.from_rows([[-5.5] * len(r) for r in responses], np.float32),
        stop_reasons=(StopReason.STOP,) * 6,
        policy_version=0,
        sampling=SamplingSettings(
            num_responses=2, temperature=1.0, top_p=1.0, repetition_penalty=1.0, max_tokens=64, seed=0
        ),
        teacher_lengths=np.full(6, 2, dtype=np.int32),
    )
    student = np.asarray(SCORES, dtype=np.float32)
    scores = ScoreBatch(student=student, teacher=np.zeros_like(student), critic_version=0)
    return rollouts, scores, PromptBatch(step=1, examples=examples)


@pytest.mark.parametrize(
    "variant",
    [
        {"kl": KlConfig(estimator="k1", place="reward", adaptive=AdaptiveKl(target=0.01, horizon=6))},
        {"kl": KlConfig(estimator="k2", adaptive=AdaptiveKl(target=0.01, horizon=6), refresh_every=2)},
        {"advantage": ReinforcePpAdvantage(), "loss": CispoLoss(aggregation="sequence_mean")},
        {"advantage": DrGrpoAdvantage(), "loss": CispoLoss(aggregation="constant", length_divisor=9)},
        {"importance": RejectedImportance(cap=1.2), "entropy_coefficient": 0.1},
        # Two groups are left for two mini-batches of two: the second rank has nothing to do at times.
        {"advantage": GrpoAdvantage(zero_spread="drop"), "mini_batch_prompts": 1},
    ],
    ids=lambda v: " ".join(v),
)
def test_two_ranks_train_as_one_does(
    directory: Path, batch: tuple[RolloutBatch, ScoreBatch, PromptBatch], variant: dict[str, Any]
):
    config = PolicyConfig(
        model=ModelConfig(model=str(directory), compute="float32"),
        optimizer=OptimizerConfig(lr=1e-2, eps=1e-3, grad_clip=1e6),
        **variant,
    )

    def make(collective: Collective) -> PolicyLearner:
        return PolicyLearner(
            config,
            RewardConfig(format=(LengthWindow(max_tokens=6, soft_tokens=4, weight=1e-7),)),
            mini_batch_prompts=config.mini_batch_prompts or 3,
            total_steps=10,
            warmup_lr=None,
            collective=collective,
            max_nonfinite_steps=0,
        )

    def work(learner: PolicyLearner) -> tuple[dict[str, Tensor], dict[str, float]]:
        learner.begin_adversarial()
        for _ in range(3):
            stats = learner.update(*batch)
        weights = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
        return weights, {k: v for k, v in stats.metrics.items() if "perf" not in k}

    alone, together = work(make(LocalCollective())), on_two_ranks(make, work)
    assert together[0][1] == together[1][1]
    assert together[0][1] == pytest.approx(alone[1], rel=5e-3, abs=1e-5)
    for name, weights in alone[0].items():
        assert torch.equal(together[0][0][name], together[1][0][name])
        gap, size = float((together[0][0][name] - weights).norm()), float(weights.norm())
        assert gap <= 1e-4 * size, f"{name}: {gap} of {size}"
