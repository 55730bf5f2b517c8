"""Learners reach their model's gradients, optimiser and whole weights through the backend alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gad_ray.config.backend import BackendSettings, LocalBackendSettings
from gad_ray.config.policy import KlConfig
from gad_ray.critics import ValueHeadCritic
from gad_ray.errors import ConfigError
from gad_ray.learners.backends import BACKENDS, BackendContext
from gad_ray.learners.optim import ParameterGroup, StepResult
from gad_ray.models.pairs import Pair
from gad_ray.rollout.worker import probe_row
from tests.unit.builders import (
    critic_config,
    critic_learner,
    figures_of,
    policy_config,
    policy_learner,
    prompt_batch,
    rollout_batch,
    score_batch,
)

SCORES = [0.1, 0.9, 0.3, 0.5, 0.2, 0.7, 0.4, 0.8, 0.6]


class ApartSettings(BackendSettings):
    name: str = "tests.unit.learners.test_backends:ApartSettings"
    lr_factor: float = 1.0


@BACKENDS.register(ApartSettings)
class ApartBackend:
    """Keeps the trained weights in one vector of its own, out of the model's reach, as a backend with shards does.

    After a step the model's own parameters hold rubbish, so that whoever reads them, and does not ask the
    backend, is found out.
    """

    def __init__(self, settings: ApartSettings, context: BackendContext) -> None:
        self.calls: list[str] = []
        self._settings, self._context = settings, context
        self._named: dict[str, nn.Parameter] = {}

    @property
    def steps_taken(self) -> int:
        return self._steps

    def wrap(self, model: nn.Module, groups: Sequence[ParameterGroup], *, total_steps: int) -> None:
        self.calls.append("wrap")
        self._model = model
        for group in groups:
            self._named.update({n: p for n, p in group.parameters.items() if p.requires_grad})
        self._sizes = [p.numel() for p in self._named.values()]
        self._flat = nn.utils.parameters_to_vector(self._named.values()).detach().clone()
        self._lr = groups[0].lr
        self._steps, self._whole = 0, True
        self._gradient = torch.zeros_like(self._flat)
        # Whole while it computes, and only then.
        model.register_forward_pre_hook(lambda *_: self._gather())
        for part in model.children():
            part.register_forward_pre_hook(lambda *_: self._gather())

    def restart(self, *, lr: float, total_steps: int) -> None:
        self.calls.append("restart")
        self._lr, self._steps = lr, 0

    def backward(self, loss: Tensor) -> None:
        loss.backward()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._named.values()]
        self._gradient += nn.utils.parameters_to_vector(grads)
        for parameter in self._named.values():
            parameter.grad = None
        self._release()

    def clip_and_step(self, loss: float) -> StepResult:
        del loss
        norm = float(self._gradient.norm())
        scale = min(1.0, self._context.optimizer.grad_clip / norm)
        self._flat -= self._lr * self._settings.lr_factor * scale * self._gradient
        self._gradient.zero_()
        self._steps += 1
        self._release()
        return StepResult(grad_norm=norm * scale, grad_norm_before_clip=norm, lr=self._lr, skipped=False)

    def full_weights(self, model: nn.Module, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        self.calls.append("full_weights")
        self._gather()
        for name, tensor in cast("Any", model).state_dict().items():
            yield name, tensor.detach().to(dtype, copy=True)
        self._release()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {"flat": self._flat}, {"steps": self._steps}

    def load_state(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        self._flat.copy_(tensors["flat"])
        self._release()
        self._steps = int(plain["steps"])

    @torch.no_grad()
    def _gather(self) -> None:
        if self._whole:
            return
        self._whole = True
        for parameter, piece in zip(self._named.values(), self._flat.split(self._sizes), strict=True):
            parameter.copy_(piece.view_as(parameter))

    @torch.no_grad()
    def _release(self) -> None:
        self._whole = False
        for name, parameter in self._named.items():
            if not name.startswith("head."):  # it is small: whole everywhere
                parameter.fill_(float("nan"))


@pytest.fixture
def prompts():
    return prompt_batch(3)


def test_a_policy_trains_syncs_saves_and_exports_through_its_backend_alone(
    chat, tied_model, prompts, tmp_path: Path
):
    config = policy_config(tied_model, backend=ApartSettings(), kl=KlConfig(coefficient=0.0))
    learner = policy_learner(config)
    learner.fit(prompts)
    learner.begin_adversarial()
    rollouts = rollout_batch(chat, prompts)
    stats = learner.play(rollouts, score_batch(SCORES))
    assert stats.num_steps == 1
    assert stats.metrics["actor/grad_norm"] > 0
    snapshot = learner.snapshot(dtype="float32", probe=probe_row(chat))
    learner.export(tmp_path / "export", dtype=torch.float32)
    exported = load_file(tmp_path / "export" / "model.safetensors")
    for name, tensor in exported.items():
        assert torch.isfinite(tensor).all(), name
        assert torch.equal(torch.from_numpy(snapshot.tensors[name]), tensor), name
    again = policy_learner(config)
    again.load_state(*learner.state())
    found = again.play(rollouts, score_batch(SCORES)).metrics
    assert figures_of(found) == figures_of(learner.play(rollouts, score_batch(SCORES)).metrics)
    calls = cast("ApartBackend", learner.backend).calls
    assert calls[:2] == ["wrap", "restart"]
    assert calls.count("full_weights") == 2


def test_a_critic_trains_tells_who_it_is_and_exports_through_its_backend_alone(
    chat, tied_model, prompts, tmp_path: Path
):
    learner = critic_learner(critic_config(tied_model, backend=ApartSettings(lr_factor=0.1)))
    first = learner.fingerprint()
    rollouts = rollout_batch(chat, prompts)
    before, stats = learner.score_and_update(prompts, rollouts)
    assert stats.num_steps == learner.version == 1
    assert set(learner.fingerprint().differing(first)) == {"weights", "head"}
    after = learner.score_batch(prompts, rollouts)
    assert (after.student != before.student).any()
    assert learner.export(tmp_path / "critic") == learner.fingerprint()
    exported = ValueHeadCritic.exported(tmp_path / "critic")
    pairs = [Pair(prompts.examples[0].messages, text) for text in ("It is blue.", "No idea.")]
    np.testing.assert_array_equal(exported.score(pairs), learner.score(pairs))


def test_an_unknown_backend_is_refused_where_it_is_named(tied_model):
    class Nobody(BackendSettings):
        name: str = "nobody"

    with pytest.raises(ConfigError, match="Nobody is the settings of no registered backend"):
        BACKENDS.of(Nobody())
    assert policy_config(tied_model).backend == LocalBackendSettings()
