"""A small temperature saturates the ranking loss: every pair is certain, and the gradient is gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from examples.failures.bench import Bench, Samples
from examples.failures.finding import Figure, Finding
from examples.failures.settings import FIELD_TAU, TAU, field_temperature
from gad_ray.core.discriminator import bradley_terry_loss
from gad_ray.learners.critic import CriticLearner
from gad_ray.models.pairs import Pair

_MEASURED_STEPS = 2
_FURTHER_PASSES = 4
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
    """Train a critic at each temperature until it is sure of some pairs, and take what is left of the gradient."""
    measured = bench.warmup[-_MEASURED_STEPS:]
    further = measured * _FURTHER_PASSES
    start = signal_of(bench.new_critic(), measured, tau=1.0)
    critic = bench.default_critic()
    bench.train(critic, further, what=f"further at τ {TAU:g}")
    ours = signal_of(critic, measured, tau=TAU)
    critic = bench.new_critic(field_temperature(bench.config.critic))
    bench.train(critic, bench.warmup, what=f"a critic at τ {FIELD_TAU:g}")
    early = signal_of(critic, measured, tau=FIELD_TAU)
    bench.train(critic, further, what=f"further at τ {FIELD_TAU:g}")
    field = signal_of(critic, measured, tau=FIELD_TAU)
    same_scores = signal_of(critic, measured, tau=TAU)

    def left(signal: Signal, tau: float) -> float:
        # At d = 0 the gradient is that at τ 1, divided by τ.
        return signal.gradient * tau / start.gradient

    shares = left(field, FIELD_TAU), left(ours, TAU)
    figures = (
        Figure(label="mean σ(d/τ)", field=field.sigmoid, ours=ours.sigmoid),
        Figure(label="gradient norm of the ranking loss", field=field.gradient, ours=ours.gradient),
        Figure(label="that norm / norm before any training", field=shares[0], ours=shares[1]),
        Figure(label="mean score difference d", field=field.score_diff, ours=ours.score_diff),
        Figure(label="mean σ(d/τ) right after the warm-up", field=early.sigmoid),
        Figure(
            label=f"mean σ(d/τ), the scores of τ {FIELD_TAU:g} read at each τ",
            field=field.sigmoid,
            ours=same_scores.sigmoid,
        ),
        Figure(
            label="norm / norm before any training, likewise",
            field=shares[0],
            ours=left(same_scores, TAU),
        ),
    )
    return Finding(
        failure="saturation",
        setting=f"τ {FIELD_TAU:g}",
        ours=f"τ {TAU:g}",
        claim=f"on pairs trained on further, mean σ(d/τ) > {_SATURATED} and less than {_VANISHED:.0%} of the gradient "
        f"is left at τ {FIELD_TAU:g}; neither is so at τ {TAU:g}",
        holds=field.sigmoid > _SATURATED >= ours.sigmoid and shares[0] < _VANISHED <= shares[1],
        figures=figures,
        details={
            "gradient_at_start_tau_1": start.gradient,
            "gradient_after_warmup": early.gradient,
            "score_diff_after_warmup": early.score_diff,
            "pairs": sum(len(one.rollouts) for one in measured),
            "further_steps": len(further),
        },
    )
