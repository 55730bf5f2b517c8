"""What a configuration asks of a step, and of whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gad_ray import machine
from gad_ray.auto import find_rates, shape_of, share_of_cores
from gad_ray.config import GroupConfig, ModelConfig, Precision, RunConfig
from gad_ray.config.critic import RemoteCriticSettings
from gad_ray.errors import ConfigError, ModelError
from gad_ray.memory_estimate import adapter_parameters
from gad_ray.models.facts import ModelFacts
from gad_ray.planning.cost_model import Cluster, Engine, Group, ModelSize, Passes, Work
from gad_ray.planning.devices import Device, cpu, find_gpu

_STEP_S = {"vllm": 0.005, "transformers": 0.03}
"""Seconds of a decode step on a GPU beside reading and computing: assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Mean lengths in tokens, the longest response of a step, and the prompts of an epoch (0: not known)."""

    prompt: float
    response: float
    longest: float
    teacher: float
    num_prompts: int = 0


def size_of(facts: ModelFacts, *, role: Literal["policy", "critic"]) -> ModelSize:
    """A model's sizes in its role.

    Raises:
        ModelError: If its config does not say them.
    """
    shape = facts.architecture
    if shape.vocab_size is None or shape.hidden_size is None or shape.num_layers is None:
        raise ModelError(
            "its config does not say all of its sizes",
            where=facts.name,
            hint="a plan needs vocab_size, hidden_size and num_hidden_layers",
        )
    table = shape.vocab_size * shape.hidden_size
    return ModelSize(
        parameters=facts.num_parameters,
        backbone=facts.num_parameters - table * (1 if shape.tied_embeddings else 2),
        head=table if role == "policy" else 0,
        layers=shape.num_layers,
        hidden=shape.hidden_size,
        key_value_width=shape.key_value_width or shape.hidden_size,
    )


def work_of(config: RunConfig, lengths: Lengths, *, policy: ModelFacts, critic: ModelFacts | None) -> Work:
    """One step of the game. No precision needs to be settled."""
    policy_config, critic_config, kl = config.policy, config.critic, config.policy.kl
    updates, epochs = config.prompts_per_step // config.mini_batch_prompts, policy_config.epochs_per_step
    # As in PolicyLearner: π_old needs no pass for the first mini-batch, nor for samples that keep the engine's.
    stale = config.max_staleness > 0 and policy_config.importance is None
    old = 0.0 if stale else 1.0 if epochs > 1 else (updates - 1) / updates
    # As in CriticLearner: a loss over all scores at once takes a pass of its own for them, and so does overlap.
    whole_batch = critic_config.loss.needs_whole_batch * critic_config.updates_per_step
    learns = config.trains_critic
    replay = critic_config.replay if learns else None
    responses = config.prompts_per_step * config.rollout.responses_per_prompt
    return Work(
        prompts=config.prompts_per_step,
        responses_per_prompt=config.rollout.responses_per_prompt,
        prompt_tokens=lengths.prompt,
        response_tokens=lengths.response,
        longest_response=lengths.longest,
        teacher_tokens=lengths.teacher,
        policy_shares=policy_config.packing,
        critic_shares=critic_config.packing,
        replayed=0 if replay is None else min(replay.size, replay.num_replayed(responses)),
        policy=_passes(
            policy_config.model,
            policy,
            trained=epochs,
            scored=old + (epochs if kl.in_loss else 0),
            steps=updates * epochs,
        ),
        critic=_passes(
            critic_config.model,
            critic,
            trained=critic_config.updates_per_step if learns else 0,
            scored=(whole_batch + config.overlap) if learns else 1,
            steps=critic_config.updates_per_step if learns else 0,
        ),
        penalty_passes=2 if kl.in_reward else 0,
    )


def _passes(
    model: ModelConfig, facts: ModelFacts | None, *, trained: float, scored: float, steps: int
) -> Passes:
    lora, weights = model.lora, 0 if facts is None else facts.num_parameters
    if lora is not None and facts is not None:
        weights = adapter_parameters(facts, lora)
    return Passes(
        trained=trained,
        scored=scored,
        optimizer_steps=steps,
        recomputes=model.gradient_checkpointing,
        trained_weights=weights,
        adapters=lora is not None,
    )


def cluster_of(
    config: RunConfig, *, gpu: str | None, policy: ModelSize, critic: ModelSize | None, mfu: float | None
) -> Cluster:
    """Who does the work, with every precision settled.

    Args:
        config: The run.
        gpu: Name of the GPUs that the groups reserve; this machine's when None.
        policy: The policy's sizes.
        critic: The critic's; None where it computes elsewhere.
        mfu: Share of the peak that passes reach; what is known of the device when None.

    Raises:
        ConfigError: If a GPU is not known, or one is named and no group reserves any.
    """
    rollout = config.rollout
    if gpu is not None and not gpus_of(config):
        raise ConfigError(
            f"--device {gpu}, and no group reserves a GPU",
            where="--device",
            hint="set policy.group.gpus_per_rank, critic.group.gpus_per_rank and rollout.gpus_per_worker to 1",
        )

    def group(
        num: int, gpus: float, threads: int | None, model: str, size: ModelSize, precision: Precision
    ) -> Group:
        device = _gpu(gpu) if gpus > 0 else _cpu(model, threads or share_of_cores(model, num))
        return Group(num=num, device=device.for_model(size.parameters, mfu), precision=precision)

    def learner(given: GroupConfig, model: ModelConfig, size: ModelSize) -> Group:
        return group(given.num_ranks, given.gpus_per_rank, given.threads, model.model, size, model.dtype)

    engine, on_gpu = rollout.engine, rollout.gpus_per_worker > 0
    return Cluster(
        policy=learner(config.policy.group, config.policy.model, policy),
        critic=learner(config.critic.group, config.critic.model, critic or policy),
        rollout=group(
            rollout.num_workers,
            rollout.gpus_per_worker,
            rollout.threads,
            config.policy.model.model,
            policy,
            rollout.dtype,
        ),
        engine=Engine(
            slots=rollout.at_once,
            continuous=engine != "transformers",
            step_s=_STEP_S.get(engine, _STEP_S["vllm"]) if on_gpu else 0.0,
        ),
        rollout_ahead=config.max_staleness > 0,
        learn_together=config.overlap,
    )


def _gpu(name: str | None) -> Device:
    if name is not None:
        return find_gpu(name)
    if here := machine.gpus():
        return find_gpu(here[0].name)
    raise ConfigError(
        "the groups reserve GPUs, and this machine has none to go by",
        where="--device",
        hint="name what they will run on, e.g. --device h100",
    )


def _cpu(model: str, threads: int) -> Device:
    rates = find_rates(shape_of(model), threads=threads)
    return cpu(threads=threads, rates={"float32": rates.float32 * 1e9, "bfloat16": rates.bfloat16 * 1e9})


def gpus_of(config: RunConfig) -> float:
    """GPUs that the run reserves, all of them from its beginning to its end."""
    groups = (config.policy.group, config.critic.group)
    learners = sum(group.num_ranks * group.gpus_per_rank for group in groups)
    served = sum(bundle["GPU"] for bundle in config.serve.bundles)
    return learners + config.rollout.num_workers * config.rollout.gpus_per_worker + served


def critic_is_remote(config: RunConfig) -> bool:
    """Whether the critic computes elsewhere."""
    return isinstance(config.critic.frozen, RemoteCriticSettings)
