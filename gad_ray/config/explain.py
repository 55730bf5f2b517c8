"""What a configuration comes to, in words: sizes are given once, and everything derived from them is said here."""

from __future__ import annotations

import math

from gad_ray.config.base import SizeChoice
from gad_ray.config.curriculum import CurriculumConfig, DifficultyCurriculum, GapCurriculum
from gad_ray.config.fit import FitMethod, SodaFit
from gad_ray.config.length import StageLength
from gad_ray.config.models import GroupConfig
from gad_ray.config.run import RunConfig


def batch_arithmetic(config: RunConfig, num_prompts: int) -> list[str]:
    """What each step does and how many there are, one sentence a line.

    Args:
        config: The run's configuration.
        num_prompts: Prompts to train on: rows of the data, less those held out.
    """
    return [
        _step(config),
        _policy(config),
        _critic(config),
        *_stages(config, num_prompts),
        _occasions(config, num_prompts),
    ]


def fit_arithmetic(config: RunConfig, method: FitMethod, num_prompts: int) -> list[str]:
    """What each step of an offline fit does and how many there are, one sentence a line.

    Args:
        config: The run's configuration.
        method: How the policy is fitted.
        num_prompts: Prompts to train on.
    """
    fit, prompts = config.fit.of(method), config.prompts_per_fit_step(method)
    steps = fit.in_steps(num_prompts=num_prompts, prompts_per_step=prompts)
    longest = config.data.max_prompt_tokens + config.data.max_teacher_tokens
    what = f"cross-entropy on {_count(prompts, 'teacher response')}"
    lines: list[str] = []
    if isinstance(fit, SodaFit):
        each = fit.responses_per_prompt
        longest = max(longest, config.data.max_prompt_tokens + config.rollout.max_response_tokens)
        asked = min(num_prompts, steps * prompts)
        lines.append(
            f"before: the base policy answers {_count(asked, 'prompt')} × {_count(each, 'response')} = "
            f"{_count(asked * each, 'response')} of at most {_count(config.rollout.max_response_tokens, 'token')}"
        )
        what = f"DPO on {_count(prompts * each, 'pair')}, β = {fit.beta:g}"
    saved = (
        f"every {_count(config.fit.checkpoint_every, 'step')}"
        if config.fit.checkpoint_every
        else "only when it is stopped"
    )
    at_end = " and at the end" if config.checkpoint.at_end else ""
    lines.append(
        f"each step: {_count(prompts, 'prompt')}, {what}; lr {fit.optimizer.lr:g}; "
        f"{_micro_batches(config.policy.micro_batch_tokens, longest)}{_ranks(config.policy.group, prompts)}"
    )
    lines.append(f"data: {_count(num_prompts, 'prompt')}, so an epoch is {num_prompts / prompts:.4g} steps")
    lines.append(
        f"in all {_count(steps, 'step')} = {steps * prompts / num_prompts:.3g} epochs; checkpoints saved {saved}{at_end}; "
        f"lost workers are started anew up to {_count(config.fit.max_failures, 'time')}"
    )
    return lines


def _step(config: RunConfig) -> str:
    prompts, responses = config.prompts_per_step, config.rollout.responses_per_prompt
    text = (
        f"each step: {_count(prompts, 'prompt')} × {_count(responses, 'response')} = "
        f"{_count(prompts * responses, 'response')} of at most {_count(config.rollout.max_response_tokens, 'token')}"
    )
    if config.rollout.num_workers > 1:
        text += f", drawn by {config.rollout.num_workers} workers, at most {_share(prompts, config.rollout.num_workers)} prompts each"
    if config.max_staleness:
        text += f"; a sample may be {_count(config.max_staleness, 'policy update')} old"
    return text


def _policy(config: RunConfig) -> str:
    policy, prompts = config.policy, config.mini_batch_prompts
    updates = config.prompts_per_step // prompts * policy.epochs_per_step
    sequences = prompts * config.rollout.responses_per_prompt
    text = (
        f"policy, in the adversarial stage: {_count(updates, 'optimiser step')} of {_count(prompts, 'prompt')} "
        f"({_count(sequences, 'response')})"
    )
    if policy.epochs_per_step > 1:
        text += f", {policy.epochs_per_step} passes over each sample"
    text += _dropped(config)
    longest = config.data.max_prompt_tokens + config.rollout.max_response_tokens
    return f"{text}; {_micro_batches(policy.micro_batch_tokens, longest)}{_ranks(policy.group, prompts)}"


def _dropped(config: RunConfig) -> str:
    """What becomes of groups without spread, where they are not kept."""
    advantage, prompts = config.policy.advantage, config.prompts_per_step
    if advantage.zero_spread == "keep":
        return ""
    if advantage.refill is None:
        return "; groups without spread are dropped"
    rounds, drawn = advantage.refill.max_rounds, math.ceil(prompts * advantage.refill.oversample)
    return (
        f"; groups without spread are dropped, and prompts drawn in their place, up to {_count(rounds, 'time')} a step: "
        f"at most {prompts + rounds * drawn} prompts in all, which the critic learns from"
    )


def _critic(config: RunConfig) -> str:
    critic, prompts = config.critic, config.prompts_per_step
    if critic.frozen is not None:
        return (
            f"critic: {critic.frozen.variant}, which scores and does not learn{_ranks(critic.group, prompts)}"
        )
    responses = prompts * config.rollout.responses_per_prompt
    learned_from = _count(responses, "policy response")
    if critic.truncated == "exclude":
        learned_from += ", less those cut at the limit"
    if critic.replay is not None:
        replayed = min(critic.replay.size, critic.replay.num_replayed(responses))
        learned_from += f", and up to {replayed} replayed ones of at most {critic.replay.size} kept"
    return (
        f"critic: {_count(critic.updates_per_step, 'optimiser step')} on {_count(prompts, 'teacher response')} and "
        f"{learned_from}; {_micro_batches(critic.micro_batch_tokens, critic.max_tokens)}"
        f"{_ranks(critic.group, prompts)}"
    )


def _stages(config: RunConfig, num_prompts: int) -> list[str]:
    warmup = config.stages.warmup
    lines = [
        f"data: {_count(num_prompts, 'prompt')}, so an epoch is {num_prompts / config.prompts_per_step:.4g} steps"
    ]
    if config.data.curriculum is not None:
        lines.append(_curriculum(config, config.data.curriculum, num_prompts))
    doing = "the policy is frozen"
    if warmup.policy == "cross_entropy":
        doing = "the policy is fitted to the teacher's text"
        if warmup.critic_only_steps:
            doing += f", after {_count(warmup.critic_only_steps, 'step')} of the critic alone"
    lines.append(f"warm-up: {_length(config, warmup, num_prompts)}; {doing}")
    lines.append(f"adversarial: {_length(config, config.stages.adversarial, num_prompts)}")
    return lines


def _curriculum(config: RunConfig, curriculum: CurriculumConfig, num_prompts: int) -> str:
    if isinstance(curriculum, DifficultyCurriculum):
        column, order = curriculum.column, curriculum.order
        how = "random order" if order == "shuffled" else f"{order} order of '{column}'"
        bounds = (("from", curriculum.min), ("to", curriculum.max))
        told = " ".join(f"{word} {value:g}" for word, value in bounds if value is not None)
        return f"curriculum: every epoch in {how}" + (
            f"; only prompts with '{column}' {told}" if told else ""
        )
    if isinstance(curriculum, GapCurriculum):
        kept = math.ceil(curriculum.keep * num_prompts)
        which = "smallest" if curriculum.order == "ascending" else "largest"
        order = "in random order" if curriculum.shuffle else f"the {which} first"
        text = f"from the second epoch on by the critic's gap so far, {order}"
        return f"curriculum: {text}" + (f"; an epoch is {kept} prompts" if kept < num_prompts else "")
    steps = curriculum.in_steps(num_prompts=num_prompts, prompts_per_step=config.prompts_per_step)
    return f"curriculum: in the first {_count(steps, 'step')} of the adversarial stage no prompts whose latest group had no spread"


def _length(config: RunConfig, stage: StageLength, num_prompts: int) -> str:
    steps = stage.in_steps(num_prompts=num_prompts, prompts_per_step=config.prompts_per_step)
    responses = steps * config.prompts_per_step * config.rollout.responses_per_prompt
    epochs = steps * config.prompts_per_step / num_prompts
    return f"{_count(steps, 'step')} = {epochs:.3g} epochs, {_count(responses, 'response')}"


def _occasions(config: RunConfig, num_prompts: int) -> str:
    stages = (config.stages.warmup, config.stages.adversarial)
    steps = sum(s.in_steps(num_prompts=num_prompts, prompts_per_step=config.prompts_per_step) for s in stages)
    scored = (
        f"every {_count(config.evaluation.every, 'step')}"
        if config.evaluation.every
        else "at the ends of the stages"
    )
    saved = (
        f"every {_count(config.checkpoint.every, 'step')}"
        if config.checkpoint.every
        else "at the stage boundary"
    )
    at_end = " and at the end" if config.checkpoint.at_end else ""
    return f"in all {_count(steps, 'step')}; held-out prompts are scored {scored}, checkpoints saved {saved}{at_end}"


def _micro_batches(tokens: SizeChoice, longest: int) -> str:
    """How many of the longest sequences fit one forward pass; one always runs, however long it is."""
    if tokens == "auto":
        return "a forward pass takes as many tokens as the machine decides"
    return f"a forward pass takes {tokens} tokens, {max(1, tokens // longest)} of the longest sequences ({longest})"


def _ranks(group: GroupConfig, prompts: int) -> str:
    if group.num_ranks == 1:
        return ""
    return f"; {group.num_ranks} ranks, at most {_share(prompts, group.num_ranks)} prompts each"


def _share(total: int, parts: int) -> int:
    return -(-total // parts)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
