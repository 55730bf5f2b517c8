"""Seconds of a step's parts, from sizes and a device's rates. Pure arithmetic.

A pass computes 2 FLOP per parameter and token, and attention's products; one with a gradient twice as much more, and one more
forward where activations are computed anew. Decoding reads the weights once a token and every cached key and value, or
computes, whichever takes longer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gad_ray.config import Precision
from gad_ray.planning.devices import Device

BYTES: Mapping[Precision, int] = {"float32": 4, "bfloat16": 2}

_OPTIMIZER_BYTES = 28
"""Of a trained weight, read and written by an AdamW step in float32: gradient, weight, both averages."""

PARTS = ("rollout", "critic", "reward", "policy", "sync", "other")
"""Parts of a step, in its order; ``critic`` scores and learns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """A model as its passes see it.

    Attributes:
        parameters: All of them.
        backbone: Those that every token is multiplied with.
        head: Those of the output head; 0 for a critic, whose head is one row.
        layers: Transformer blocks.
        hidden: Width.
        key_value_width: Numbers of a token's keys in one layer.
    """

    parameters: int
    backbone: int
    head: int
    layers: int
    hidden: int
    key_value_width: int

    def forward_flop(self, tokens: float, *, context: float, predicted: float = 0.0) -> float:
        """FLOP of a forward pass.

        Args:
            tokens: Tokens that are computed.
            context: Tokens that each of them sees in the mean.
            predicted: Tokens for which the output head gives a distribution.
        """
        attention = 4 * self.layers * self.hidden * context
        return tokens * (2 * self.backbone + attention) + 2 * self.head * predicted

    def text_flop(
        self, prompts: float, prompt_tokens: float, answers: Sequence[tuple[float, float]]
    ) -> float:
        """FLOP of a forward pass over so many prompts, and over (number, tokens) of answers that follow one."""
        flop = self.forward_flop(prompts * prompt_tokens, context=prompt_tokens / 2)
        for count, length in answers:
            tokens = count * length
            flop += self.forward_flop(tokens, context=prompt_tokens + length / 2, predicted=tokens)
        return flop

    def cache_bytes(self, precision: Precision) -> int:
        """Bytes of a token's keys and values."""
        return 2 * self.layers * self.key_value_width * BYTES[precision]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Processes that share a role's work.

    Attributes:
        num: How many.
        device: What each of them has.
        precision: In which they compute.
        devices_each: Devices over which each process lays its model.
    """

    num: int
    device: Device
    precision: Precision
    devices_each: int = 1

    @property
    def rate(self) -> float:
        """FLOP/s of one process at its peak."""
        return self.devices_each * self.device.rates[self.precision]

    @property
    def reads(self) -> float:
        """Bytes per second that one process reads."""
        return self.devices_each * self.device.bandwidth * self.device.read

    def largest_share(self, prompts: int) -> float:
        """Part of the prompts that the process with the most has."""
        return math.ceil(prompts / self.num) / prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """What a learner does over a step's texts.

    Attributes:
        trained: Passes with a gradient.
        scored: Forward passes alone.
        optimizer_steps: Steps of the optimiser.
        recomputes: Whether activations are computed anew (gradient checkpointing).
        trained_weights: Weights that learn; fewer than all with LoRA, whose backward pass is half of the other.
        adapters: Whether these are LoRA's.
    """

    trained: float = 0.0
    scored: float = 0.0
    optimizer_steps: int = 0
    recomputes: bool = False
    trained_weights: float = 0.0
    adapters: bool = False

    def seconds(self, flop: float, group: Group, *, prompts: int) -> float:
        """Seconds of all passes.

        Args:
            flop: Of one forward pass over all texts.
            group: Who computes.
            prompts: Among whose texts the work is shared.
        """
        device = group.device
        forwards = 1 + (1 if self.adapters else 2) + self.recomputes
        share = flop * group.largest_share(prompts) / group.rate
        passes = share * (self.trained * forwards / device.train + self.scored / device.score)
        return passes + self.optimizer_steps * _OPTIMIZER_BYTES * self.trained_weights / group.reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """How responses are drawn.

    Attributes:
        slots: Sequences decoded together.
        continuous: Whether a finished sequence makes room for the next, and responses share their prompt's pass (vLLM); else a batch
            is decoded until its longest response ends (transformers).
        step_s: Seconds of a decode step beside reading and computing: program, sampling.
    """

    slots: int
    continuous: bool
    step_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one step has to do.

    Attributes:
        prompts: Of a step.
        responses_per_prompt: Drawn for each.
        prompt_tokens: Mean length, chat template included.
        response_tokens: Mean length.
        longest_response: Of a step; the engine decodes as many tokens one after the other.
        teacher_tokens: Mean length of the teacher's texts.
        policy_shares: Whether the policy computes a prompt once for all of its responses.
        critic_shares: Whether the critic does.
        replayed: Past responses in the critic's batch, each taken to come with its own prompt and teacher's text.
        policy: The policy's passes.
        critic: The critic's.
        penalty_passes: Forward passes of the policy for a KL penalty in the reward.
    """

    prompts: int
    responses_per_prompt: int
    prompt_tokens: float
    response_tokens: float
    longest_response: float
    teacher_tokens: float
    policy_shares: bool = False
    critic_shares: bool = False
    replayed: int = 0
    policy: Passes
    critic: Passes
    penalty_passes: int = 0

    @property
    def responses(self) -> int:
        """Of a step."""
        return self.prompts * self.responses_per_prompt

    def policy_flop(self, model: ModelSize) -> float:
        """FLOP of a forward pass over the responses."""
        prompts = self.prompts if self.policy_shares else self.responses
        return model.text_flop(prompts, self.prompt_tokens, [(self.responses, self.response_tokens)])

    def teacher_flop(self, model: ModelSize) -> float:
        """FLOP of a forward pass of the policy over the teacher's texts."""
        return model.text_flop(self.prompts, self.prompt_tokens, [(self.prompts, self.teacher_tokens)])

    def critic_flop(self, model: ModelSize) -> float:
        """FLOP of a forward pass over responses, teacher's texts and what is replayed."""
        groups, responses = self.prompts + self.replayed, self.responses + self.replayed
        prompts = groups if self.critic_shares else groups + responses
        answers = [(responses, self.response_tokens), (groups, self.teacher_tokens)]
        return model.text_flop(prompts, self.prompt_tokens, answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Who does it."""

    policy: Group
    critic: Group
    rollout: Group
    engine: Engine
    rollout_ahead: bool = False
    learn_together: bool = False


def rollout_seconds(work: Work, model: ModelSize, group: Group, engine: Engine) -> float:
    """Prefill and decoding of one step's responses by the worker with the most prompts."""
    prompts = math.ceil(work.prompts / group.num)
    rows = prompts * work.responses_per_prompt
    slots = min(engine.slots, rows)
    if engine.continuous:
        steps = max(work.longest_response, rows * work.response_tokens / slots)
        decoded, prefilled = rows * work.response_tokens, prompts * work.prompt_tokens
        context = work.prompt_tokens + work.response_tokens / 2
    else:
        steps = math.ceil(rows / slots) * work.longest_response
        decoded, prefilled = rows * work.longest_response, rows * work.prompt_tokens
        context = work.prompt_tokens + work.longest_response / 2
    device, precision = group.device, group.precision
    read = (
        steps * model.parameters * BYTES[precision] + decoded * context * model.cache_bytes(precision)
    ) / group.reads
    computed = model.forward_flop(decoded, context=context, predicted=decoded) / (group.rate * device.score)
    prefill = model.forward_flop(prefilled, context=work.prompt_tokens / 2) / (group.rate * device.prefill)
    return prefill + max(read, computed) + steps * engine.step_s


def sync_seconds(model: ModelSize, cluster: Cluster) -> float:
    """The weights out of the learner's memory and into the engines', which take them at the same time."""
    size = model.parameters * BYTES[cluster.rollout.precision]
    return sum(size / (group.device.link * group.device.copy) for group in (cluster.policy, cluster.rollout))


def game_seconds(
    work: Work, cluster: Cluster, *, policy: ModelSize, critic: ModelSize | None
) -> dict[str, float]:
    """Seconds of each part of a step of the game; ``other`` is none of the model's.

    Args:
        work: What is to be done.
        cluster: Who does it.
        policy: The policy's sizes.
        critic: The critic's; None where it computes elsewhere.
    """
    flop = work.policy_flop(policy)
    penalty = Passes(scored=work.penalty_passes)
    return {
        "rollout": rollout_seconds(work, policy, cluster.rollout, cluster.engine),
        "critic": 0.0
        if critic is None
        else work.critic.seconds(work.critic_flop(critic), cluster.critic, prompts=work.prompts),
        "reward": penalty.seconds(flop, cluster.policy, prompts=work.prompts),
        "policy": work.policy.seconds(flop, cluster.policy, prompts=work.prompts),
        "sync": sync_seconds(policy, cluster),
        "other": 0.0,
    }


def fit_seconds(work: Work, cluster: Cluster, *, policy: ModelSize) -> float:
    """Seconds of the policy's cross-entropy on a step's teacher's texts."""
    passes = Passes(
        trained=1,
        optimizer_steps=1,
        recomputes=work.policy.recomputes,
        trained_weights=work.policy.trained_weights,
        adapters=work.policy.adapters,
    )
    return passes.seconds(work.teacher_flop(policy), cluster.policy, prompts=work.prompts)


def step_seconds(parts: Mapping[str, float], cluster: Cluster) -> float:
    """Seconds of a step: its parts one after the other, but for those that go on at the same time."""
    learning = [parts["critic"], parts["policy"]]
    rest = (max(learning) if cluster.learn_together else sum(learning)) + parts["reward"] + parts["other"]
    rollout = parts["rollout"]
    return (max(rollout, rest) if cluster.rollout_ahead else rollout + rest) + parts["sync"]
