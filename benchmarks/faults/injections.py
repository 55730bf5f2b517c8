"""Faults that no setting and no data can express, because the system does not allow them: put into its processes.

Each is a small function that breaks one thing of a rollout worker, a learner or the driver; everything else is the
real thing. They live here and nowhere else. An actor's class is replaced, in the driver's process alone, by one that
lets such a function loose on it; Ray sends that class where the actor runs.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from benchmarks.faults.case import NAN_FROM, OTHER_TEMPERATURE, SLEEP_AT, SLEEP_S
from gad_ray.actors import critic_group, policy_group, rollout_group
from gad_ray.batch import PromptBatch, RolloutBatch, SamplingSettings, WeightsSnapshot
from gad_ray.config import RunConfig
from gad_ray.controller import heldout
from gad_ray.learners import critic, critic_batch
from gad_ray.learners.critic import CriticLearner
from gad_ray.learners.policy import PolicyLearner
from gad_ray.models.chat import load_chat_format
from gad_ray.models.pairs import Pair, PairEncoder, TokenRow
from gad_ray.models.source import resolve_model
from gad_ray.rollout.worker import RolloutWorker

_MARK = "\ue000sampled"


# -- the rollout worker -----------------------------------------------------------------------------------


def ignore_weights(worker: RolloutWorker) -> None:
    """The engine ignores new weights."""
    deaf: Any = worker

    def ignore(_weights: WeightsSnapshot) -> None:
        return

    deaf._engine.load_weights = ignore


def forge_proof(worker: RolloutWorker) -> None:
    """The same, and the proof of new weights is forged: their version is told, and no gap."""
    forged: Any = worker

    def pretend(weights: WeightsSnapshot) -> float:
        forged._version = weights.version
        return 0.0

    forged.load_weights = pretend


def sleep_once(worker: RolloutWorker, *, seconds: float = SLEEP_S) -> None:
    """Sleeps before it answers one step."""
    slow: Any = worker
    generate = worker.generate

    def late(prompts: PromptBatch, sampling: SamplingSettings) -> RolloutBatch:
        if prompts.step == SLEEP_AT:
            time.sleep(seconds)
        return generate(prompts, sampling)

    slow.generate = late


# -- the critic -------------------------------------------------------------------------------------------


class _MarkedEncoder(PairEncoder):
    """Renders a marked text with its end-of-turn token inside the mask, and any other without."""

    def encode(self, pair: Pair) -> TokenRow:
        text = pair.response.removesuffix(_MARK)
        row = super().encode(Pair(pair.messages, text))
        if text == pair.response:
            return row
        return TokenRow(ids=np.append(row.ids, np.int32(self.chat.end_of_turn_id)), start=row.start)


def marked(rollouts: RolloutBatch) -> RolloutBatch:
    """The same answers, marked as such."""
    return dataclasses.replace(rollouts, texts=tuple(text + _MARK for text in rollouts.texts))


def read_one_sided_end(learner: CriticLearner) -> None:
    """Reads an end-of-turn token behind every answer, and none behind the teacher's text."""
    encoder = learner.model.encoder
    learner.model.encoder = _MarkedEncoder(encoder.chat, max_tokens=encoder.max_tokens)
    batch: Any = critic_batch
    tokenise = batch._tokenise

    def one_sided(messages: Any, texts: Sequence[str], encoder: PairEncoder) -> Any:
        teacher, *answers = texts
        return tokenise(messages, [teacher, *(text + _MARK for text in answers)], encoder)

    batch._tokenise = one_sided


def _change_scores(learner: CriticLearner, change: Callable[[Tensor], Tensor]) -> None:
    model: Any = learner.model
    pooled = model.pooled
    model.pooled = lambda values, rows: change(pooled(values, rows))


def round_scores(learner: CriticLearner) -> None:
    """Scores go through bfloat16, as from a head in that precision."""
    _change_scores(learner, lambda scores: scores.bfloat16().float())


def spoil_row(learner: CriticLearner) -> None:
    """From one step on, a row of every batch has a score that is not a number."""

    def spoil(scores: Tensor) -> Tensor:
        if learner.version < NAN_FROM - 1:
            return scores
        return torch.cat([scores[:1] * torch.nan, scores[1:]])

    _change_scores(learner, spoil)


def swap_sides(_learner: CriticLearner) -> None:
    """The loss takes the teacher's scores for the student's: the critic learns to prefer the student."""
    loss = critic.discriminator_loss

    def swapped(config: Any, teacher: Tensor, student: Tensor, *rest: Any) -> Any:
        return loss(config, -teacher, -student, *rest)

    critic.discriminator_loss = swapped


def freeze(learner: CriticLearner, *, after: int) -> None:
    """The critic learns for so many steps and stands still from then on."""
    optimizer: Any = cast("Any", learner.backend).optimizer
    step = optimizer.step

    def frozen(loss: float) -> Any:
        if optimizer.steps_taken >= after:
            optimizer._base_lrs = [0.0] * len(optimizer._base_lrs)
        return step(loss)

    optimizer.step = frozen


# -- the policy -------------------------------------------------------------------------------------------


def spoil_losses(learner: PolicyLearner) -> None:
    """Every second optimiser step from here on has a loss that is not a number."""
    optimizer: Any = cast("Any", learner.backend).optimizer
    step, number = optimizer.step, iter(range(10**9))
    optimizer.step = lambda loss: step(torch.nan if next(number) % 2 else loss)


# -- the driver -------------------------------------------------------------------------------------------


def sample_otherwise_at_evaluation() -> None:
    """The answers to the held-out prompts are drawn at another temperature than training's."""
    answer = heldout.answer

    def colder(config: RunConfig, *rest: Any) -> RolloutBatch:
        rollout = config.rollout.model_copy(update={"temperature": OTHER_TEMPERATURE})
        return answer(config.model_copy(update={"rollout": rollout}), *rest)

    heldout.answer = colder


# -- actors that carry them -------------------------------------------------------------------------------


def sick_actor(healthy: Any, method: str, around: Callable[..., Any]) -> Any:
    """An actor's class of which one method is another.

    Args:
        healthy: The class.
        method: Name of its method.
        around: Takes the actor, the method as it was and its arguments.
    """
    original = getattr(healthy, method)

    # With what Ray has noted on the method.
    @functools.wraps(original)
    def broken(self: Any, *arguments: Any) -> Any:
        return around(self, functools.partial(original, self), *arguments)

    return type(f"Sick{healthy.__name__}", (healthy,), {method: broken})


_GROUPS = {"RolloutActor": rollout_group, "CriticActor": critic_group, "PolicyActor": policy_group}
"""Class → the module that starts actors of it."""


def _replace(name: str, method: str, around: Callable[..., Any]) -> Callable[[], None]:
    """What puts such a class in the place of the one that the driver starts actors of."""

    def install() -> None:
        group = _GROUPS[name]
        setattr(group, name, sick_actor(getattr(group, name), method, around))

    return install


def _after(break_it: Callable[[Any], None]) -> Callable[..., Any]:
    """The method as it was, and then the fault."""

    def around(actor: Any, method: Callable[..., Any], *arguments: Any) -> Any:
        result = method(*arguments)
        break_it(actor)
        return result

    return around


def _one_sided_evaluation(_actor: Any, method: Callable[..., Any], *arguments: Any) -> Any:
    exported, prompts, answers = arguments
    return method(exported, prompts, tuple(map(marked, answers)))


def _other_template(actor: Any, method: Callable[..., Any], *arguments: Any) -> Any:
    model = actor.learner.model
    own = model.encoder
    chat = load_chat_format(resolve_model(actor._config.critic.model.model))
    model.encoder = PairEncoder(chat, max_tokens=own.max_tokens)
    try:
        return method(*arguments)
    finally:
        model.encoder = own


def _install_one_sided_end() -> None:
    _replace("CriticActor", "setup", _after(lambda actor: read_one_sided_end(actor.learner)))()
    _replace("CriticActor", "score_fixed", _one_sided_evaluation)()


def _on_worker(break_it: Callable[[RolloutWorker], None]) -> Callable[[], None]:
    return _replace("RolloutActor", "setup", _after(lambda actor: break_it(actor._worker)))


def _on_critic(break_it: Callable[[CriticLearner], None]) -> Callable[[], None]:
    return _replace("CriticActor", "setup", _after(lambda actor: break_it(actor.learner)))


INJECTIONS: dict[str, Callable[[], None]] = {
    "deaf-engine": _on_worker(ignore_weights),
    "lying-engine": _on_worker(forge_proof),
    "sleeping-engine": _on_worker(sleep_once),
    "one-sided-end": _install_one_sided_end,
    "other-template-at-evaluation": _replace("CriticActor", "score_fixed", _other_template),
    "other-temperature-at-evaluation": sample_otherwise_at_evaluation,
    "rounded-scores": _on_critic(round_scores),
    "nan-row": _on_critic(spoil_row),
    "swapped-sides": _on_critic(swap_sides),
    "frozen-critic": _replace(
        "CriticActor",
        "setup",
        _after(lambda actor: freeze(actor.learner, after=actor._config.stages.warmup.steps)),
    ),
    "nan-loss": _replace(
        "PolicyActor", "begin_adversarial", _after(lambda actor: spoil_losses(actor.learner))
    ),
}
"""Name → what installs the fault in the driver's process."""
