"""The toy of generative adversarial distillation (arXiv 2511.10643): two modes, and a student that has room for one.

The teacher is a mixture of two Gaussians over ten classes, seen only through its samples. The student is one
Gaussian over the same classes. Maximum likelihood on the teacher's samples (SeqKD) minimises KL(teacher‖student):
it covers both modes and puts mass between them. In the game the best critic of the Bradley-Terry loss is
log p_T/p_S up to a constant, so that the policy gradient descends KL(student‖teacher): it settles on one mode.

Both students start alike, see the same number of teacher samples a step, and use the same optimiser.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gad_ray.core.advantages import GrpoAdvantage, Rewarded, grpo_advantages
from gad_ray.core.discriminator import bradley_terry_loss
from gad_ray.core.policy_loss import reinforce_loss

NUM_CLASSES = 10
MODES = (2.0, 6.0)
_WEIGHTS = (0.7, 0.3)
_WIDTH = 0.6

_STEPS = 600
_CRITIC_ONLY_STEPS = 50
_TEACHER_SAMPLES = 64
_GROUP = 8
_LR = 0.02
_CRITIC_LR = 0.1
_CRITIC_UPDATES = 5
_COVERED = 0.5
"""A mode is covered where the student has at least this share of the teacher's mass on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How one student stands to the teacher.

    Attributes:
        probabilities: Of each class.
        mean: Mean class.
        std: Standard deviation of the class.
        forward_kl: KL(teacher‖student), nats: what maximum likelihood minimises.
        reverse_kl: KL(student‖teacher), nats: what the game minimises.
        mode_mass: Mass within one class of each of the teacher's modes.
        modes_covered: Modes on which the student has at least half of the teacher's mass.
    """

    probabilities: tuple[float, ...]
    mean: float
    std: float
    forward_kl: float
    reverse_kl: float
    mode_mass: tuple[float, ...]
    modes_covered: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyResult:
    """The teacher and both students, with the course of each student's mean over the steps."""

    seed: int
    teacher: Figures
    seqkd: Figures
    game: Figures
    seqkd_course: tuple[float, ...]
    game_course: tuple[float, ...]


class GaussianStudent(nn.Module):
    """A Gaussian over the classes 0, 1, …: the density at the classes, normalised over them."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean, dtype=torch.float64))
        self.log_std = nn.Parameter(torch.tensor(math.log(std), dtype=torch.float64))

    def forward(self) -> Float[Tensor, " classes"]:
        """Log-probability (nats) of each class."""
        return (-0.5 * ((_classes() - self.mean) / self.log_std.exp()).square()).log_softmax(-1)


def teacher_probabilities() -> Float[Tensor, " classes"]:
    """The mixture at the classes, each Gaussian normalised over them."""
    parts = [
        weight * (-0.5 * ((_classes() - mode) / _WIDTH).square()).softmax(-1)
        for mode, weight in zip(MODES, _WEIGHTS, strict=True)
    ]
    return torch.stack(parts).sum(0)


def figures_of(student: Float[Tensor, " classes"]) -> Figures:
    """The figures of a distribution over the classes.

    Args:
        student: float64 probabilities.
    """
    teacher = teacher_probabilities()
    mean = (student * _classes()).sum()
    near = [(_classes() - mode).abs() <= 1.0 for mode in MODES]
    mass = [float(student[n].sum()) for n in near]
    return Figures(
        probabilities=tuple(student.tolist()),
        mean=float(mean),
        std=float((student * (_classes() - mean).square()).sum().sqrt()),
        forward_kl=kl_divergence(teacher, student),
        reverse_kl=kl_divergence(student, teacher),
        mode_mass=tuple(mass),
        modes_covered=sum(m >= _COVERED * float(teacher[n].sum()) for m, n in zip(mass, near, strict=True)),
    )


def kl_divergence(p: Float[Tensor, " classes"], q: Float[Tensor, " classes"]) -> float:
    """KL(p‖q) in nats; classes without mass under p count for nothing."""
    return float((torch.xlogy(p, p) - torch.xlogy(p, q)).sum())


def play_toy(*, seed: int) -> ToyResult:
    """Fit both students.

    Args:
        seed: Of the samples and of where the students start, between the modes.
    """
    generator = torch.Generator().manual_seed(seed)
    start = 3.0 + 3.0 * float(torch.rand((), generator=generator))
    seqkd, game = GaussianStudent(start, 2.0), GaussianStudent(start, 2.0)
    seqkd_course = _fit_by_likelihood(seqkd, generator)
    game_course = _play_game(game, generator)
    with torch.no_grad():
        return ToyResult(
            seed=seed,
            teacher=figures_of(teacher_probabilities()),
            seqkd=figures_of(seqkd().exp()),
            game=figures_of(game().exp()),
            seqkd_course=tuple(seqkd_course),
            game_course=tuple(game_course),
        )


def _fit_by_likelihood(student: GaussianStudent, generator: torch.Generator) -> list[float]:
    optimizer = torch.optim.Adam(student.parameters(), lr=_LR)
    course: list[float] = []
    for _ in range(_STEPS):
        course.append(float(student.mean.detach()))
        samples = _draw(teacher_probabilities(), _TEACHER_SAMPLES, generator)
        optimizer.zero_grad()
        (-student()[samples].mean()).backward()
        optimizer.step()
    return course


def _play_game(student: GaussianStudent, generator: torch.Generator) -> list[float]:
    """The critic is a score for each class; the student follows it by the plain policy gradient."""
    scores = nn.Parameter(torch.zeros(NUM_CLASSES, dtype=torch.float64))
    critic_optimizer = torch.optim.Adam([scores], lr=_CRITIC_LR)
    optimizer = torch.optim.Adam(student.parameters(), lr=_LR)
    group = torch.arange(_TEACHER_SAMPLES).repeat_interleave(_GROUP)
    course: list[float] = []
    for step in range(_CRITIC_ONLY_STEPS + _STEPS):
        teacher = _draw(teacher_probabilities(), _TEACHER_SAMPLES, generator)
        logprobs = student()
        samples = _draw(logprobs.detach().exp(), len(group), generator)
        rewards = scores.detach()[samples]
        for _ in range(_CRITIC_UPDATES):
            critic_optimizer.zero_grad()
            loss, _ = bradley_terry_loss(scores[teacher], scores[samples], group=group, temperature=1.0)
            loss.backward()
            critic_optimizer.step()
        if step < _CRITIC_ONLY_STEPS:
            continue
        course.append(float(student.mean.detach()))
        optimizer.zero_grad()
        # A response is one token: its class.
        batch = Rewarded(
            rewards=rewards.numpy(), group=group.numpy(), lengths=np.ones(len(samples), dtype=np.int64)
        )
        chosen = logprobs[samples][:, None]
        loss, _ = reinforce_loss(
            chosen,
            old_logprobs=chosen.detach(),
            advantages=torch.from_numpy(grpo_advantages(batch, GrpoAdvantage(std_floor=0.1, clip=None))),
            mask=torch.ones_like(chosen, dtype=torch.bool),
            num_tokens=len(samples),
        )
        loss.backward()
        optimizer.step()
    return course


def _classes() -> Float[Tensor, " classes"]:
    return torch.arange(NUM_CLASSES, dtype=torch.float64)


def _draw(
    probabilities: Float[Tensor, " classes"], count: int, generator: torch.Generator
) -> Int[Tensor, " samples"]:
    return torch.multinomial(probabilities, count, replacement=True, generator=generator)
