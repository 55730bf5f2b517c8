"""A small temperature saturates the ranking loss: every pair is certain, and the gradient is gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gad_ray.core.discriminator import bradley_terry_loss
from gad_ray.demos.failures.bench import Bench, Samples
from gad_ray.demos.failures.finding import Figure, Finding
from gad_ray.demos.failures.settings import FIELD_TAU, TAU, field_temperature
from gad_ray.learners.critic import CriticLearner
from gad_ray.models.pairs import Pair

_MEASURED_STEPS = 4
_SATURATED = 0.98
_VANISHED = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What is left of the ranking loss on some pairs.

    Attributes:
        sigmoid: Mean σ(d/τ).
        score_diff: Mean d.
        gradient: Norm of the ranking loss's gradient over all weights, the score penalty left out.
    """

    sigmoid: float
    score_diff: float
    gradient: float


def signal_of(critic: CriticLearner, samples: Sequence[Samples], *, tau: float) -> Signal:
    """The signal at a temperature, mean over the steps' batches; the critic stays as it is."""
    parts = [_signal(critic, one, tau) for one in samples]

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    return Signal(
        sigmoid=mean([p.sigmoid for p in parts]),
        score_diff=mean([p.score_diff for p in parts]),
        gradient=mean([p.gradient for p in parts]),
    )


def _signal(critic: CriticLearner, samples: Samples, tau: float) -> Signal:
    model = critic.model
    examples = samples.prompts.examples
    place = {example.id: i for i, example in enumerate(examples)}
    group = torch.tensor([place[i] for i in samples.rollouts.example_ids])
    pairs = [Pair(e.messages, e.teacher_response) for e in examples]
    pairs += [
        Pair(examples[i].messages, text)
        for i, text in zip(group.tolist(), samples.rollouts.texts, strict=True)
    ]
    scores = model.scores([model.encoder.encode(pair) for pair in pairs])
    teacher, student = scores[: len(examples)], scores[len(examples) :]
    loss, _ = bradley_terry_loss(teacher, student, group=group, temperature=tau)
    gradients = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])
    difference = (teacher[group] - student).detach()
    return Signal(
        sigmoid=float(torch.sigmoid(difference / tau).mean()),
        score_diff=float(difference.mean()),
        gradient=_norm(gradients),
    )


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.stack([t.double().norm() for t in tensors]).norm())


def reproduce(bench: Bench) -> Finding:
    """Train a critic at each temperature on the same samples, and take the ranking loss's gradient on them."""
    measured = bench.warmup[-_MEASURED_STEPS:]
    start = signal_of(bench.new_critic(), measured, tau=1.0)
    ours = signal_of(bench.default_critic(), measured, tau=TAU)
    critic = bench.new_critic(field_temperature(bench.config.critic))
    bench.train(critic, bench.warmup, what=f"a critic at τ {FIELD_TAU}")
    field = signal_of(critic, measured, tau=FIELD_TAU)
    same_scores = signal_of(critic, measured, tau=TAU)
    # At d = 0 the gradient is that at τ 1, divided by τ.
    left = [
        signal.gradient / (start.gradient / tau)
        for signal, tau in ((field, FIELD_TAU), (ours, TAU), (same_scores, TAU))
    ]
    return Finding(
        failure="saturation",
        setting=f"τ {FIELD_TAU}, scores up to 5 free, penalty 0.001",
        ours=f"τ {TAU}, scores up to 3 free, penalty 0.01",
        claim=f"after the warm-up mean σ(d/τ) > {_SATURATED} and less than {_VANISHED:.0%} of the gradient is left "
        f"at τ {FIELD_TAU}, neither at τ {TAU}",
        holds=field.sigmoid > _SATURATED
        and left[0] < _VANISHED
        and ours.sigmoid <= _SATURATED
        and left[1] >= _VANISHED,
        figures=(
            Figure(label="mean σ(d/τ) on the last pairs trained on", field=field.sigmoid, ours=ours.sigmoid),
            Figure(label="gradient norm of the ranking loss", field=field.gradient, ours=ours.gradient),
            Figure(label="share of the gradient at the start", field=left[0], ours=left[1]),
            Figure(label="mean score difference d", field=field.score_diff, ours=ours.score_diff),
            Figure(
                label=f"mean σ(d/τ) of the scores made at τ {FIELD_TAU}, read at each τ",
                field=field.sigmoid,
                ours=same_scores.sigmoid,
            ),
            Figure(
                label="share of the gradient left, likewise",
                field=left[0],
                ours=left[2],
            ),
        ),
        details={"gradient_at_start_tau_1": start.gradient},
    )
