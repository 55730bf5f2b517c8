"""What a run's actors will hold in memory, from sizes alone. Rough: meant to tell 3 GiB from 30, not 3 from 4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gad_ray.config import LoraConfig, ModelConfig, Precision, RunConfig
from gad_ray.machine import GIB
from gad_ray.models.facts import ModelFacts

_BYTES: Mapping[Precision, int] = {"float32": 4, "bfloat16": 2}

_PROCESS = int(0.7 * GIB)
"""An actor before it holds anything of its own: Python, torch, Ray."""

_ACTIVATION_WIDTHS = 17
"""Numbers per token and layer that the backward pass needs, in hidden sizes (Korthikanti et al., 2205.05198:
34 bytes at two bytes a number, attention scores not kept)."""

_MLP_WIDTH = 3
"""Width of the feed-forward layers, in hidden sizes: between those of the common architectures."""


_CHUNK = {False: 2**25, True: 2**28}
"""Logits that are held at once, by whether on a GPU (:mod:`gad_ray.models.output_head`)."""

_BYTES_PER_TOKEN = 4
"""Text of one token, in bytes of Python: English in the common tokenizers."""

_BYTES_PER_KEPT_RESPONSE = 400
"""A replayed response before its text: the objects that hold it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorMemory:
    """One kind of actor.

    Attributes:
        role: ``policy``, ``critic``, ``rollout``, ``serve``, or ``object store``.
        num: How many of them there are.
        on_gpu: Whether the parts lie in a GPU's memory; else in main memory.
        parts: What is held → bytes, for each actor.
    """

    role: str
    num: int
    on_gpu: bool
    parts: Mapping[str, int]

    @property
    def each(self) -> int:
        """Bytes of one actor."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in self.parts.items())
        times = f"{self.num} × " if self.num > 1 else ""
        where = "GPU" if self.on_gpu else "main"
        return f"{self.role}: {times}{self.each / GIB:.1f} GiB of {where} memory ({parts})"


def estimate_memory(
    config: RunConfig, *, policy: ModelFacts, critic: ModelFacts | None, engine: str
) -> tuple[ActorMemory, ...]:
    """Estimate what each actor holds at its fullest.

    Args:
        config: The run's configuration.
        policy: Facts of the policy's model.
        critic: Facts of the critic's model; None where none is trained.
        engine: The rollout engine, ``vllm`` or ``transformers``.
    """
    # A sequence longer than the budget, or a group of them for the critic, is passed in one piece.
    longest = config.data.max_prompt_tokens + max(
        config.rollout.max_response_tokens, config.data.max_teacher_tokens
    )
    group = (config.rollout.responses_per_prompt + 1) * min(longest, config.critic.max_tokens)
    policy_tokens = max(config.policy.pass_tokens, longest)
    critic_tokens = max(config.critic.pass_tokens, group)
    # The entropy's own gradient keeps the softmax and its product with the logits, in float32.
    with_entropy = config.policy.entropy_coefficient > 0
    entropy = policy_tokens * _known(policy.architecture.vocab_size) * 8 if with_entropy else 0
    reference = _reference(config, policy)
    rollout = _engine(config, policy, engine)
    if config.policy.model.lora is not None:
        rollout["base of the adapters"] = policy.num_parameters * _BYTES[config.policy.model.dtype]
    return (
        ActorMemory(
            role="policy",
            num=config.policy.group.num_ranks,
            on_gpu=config.policy.group.gpus_per_rank > 0,
            parts={
                **_learner(
                    policy,
                    config.policy.model,
                    policy_tokens,
                    has_logits=True,
                    on_gpu=config.policy.group.gpus_per_rank > 0,
                ),
                **({"reference": reference} if reference else {}),
                **({"entropy": entropy} if entropy else {}),
            },
        ),
        ActorMemory(
            role="critic",
            num=config.critic.group.num_ranks,
            on_gpu=config.critic.group.gpus_per_rank > 0,
            parts={"process": _PROCESS} if critic is None else _critic(config, critic, critic_tokens),
        ),
        ActorMemory(
            role="rollout",
            num=config.rollout.num_workers,
            on_gpu=config.rollout.gpus_per_worker > 0,
            parts=rollout,
        ),
        *(() if critic is None else _endpoint(config, critic)),
    )


def _critic(config: RunConfig, facts: ModelFacts, tokens: int) -> dict[str, int]:
    replay = _replay(config)
    return {
        **_learner(
            facts,
            config.critic.model,
            tokens,
            has_logits=False,
            on_gpu=config.critic.group.gpus_per_rank > 0,
        ),
        **({"replay": replay} if replay else {}),
    }


def _endpoint(config: RunConfig, facts: ModelFacts) -> tuple[ActorMemory, ...]:
    """The replicas that serve the critic, each with two of them while one takes over, and those on their way there."""
    serve = config.serve
    if not serve.enabled:
        return ()
    weights = facts.num_parameters * _BYTES[config.critic.model.dtype]
    return (
        ActorMemory(
            role="serve",
            num=serve.num_replicas,
            on_gpu=serve.gpus_per_replica > 0,
            parts={"process": _PROCESS, "weights": weights, "the next ones": weights},
        ),
        ActorMemory(
            role="object store", num=1, on_gpu=False, parts={"published critics, old and new": 2 * weights}
        ),
    )


def _reference(config: RunConfig, facts: ModelFacts) -> int:
    """The reference's own weights: a copy of what is trained, adapters in float32."""
    model = config.policy.model
    if config.policy.kl.coefficient == 0.0:
        return 0
    if model.lora is not None:
        return adapter_parameters(facts, model.lora) * _BYTES["float32"]
    return facts.num_parameters * _BYTES[model.dtype]


def _replay(config: RunConfig) -> int:
    """Past responses as text, and their JSON while a checkpoint is saved; a step's share prompt and teacher's text."""
    replay = config.critic.replay
    if replay is None:
        return 0
    shared = config.data.max_prompt_tokens + config.data.max_teacher_tokens
    kept = shared / config.rollout.responses_per_prompt + config.rollout.max_response_tokens
    saved = shared + config.rollout.max_response_tokens
    # The text, its bytes, and the tensor that they are copied to.
    return int(replay.size * (_BYTES_PER_KEPT_RESPONSE + (kept + 3 * saved) * _BYTES_PER_TOKEN))


def estimate_fit_memory(config: RunConfig, *, policy: ModelFacts, engine: str) -> tuple[ActorMemory, ...]:
    """Estimate what the processes of an offline fit hold at their fullest: the policy's ranks, the rollout workers.

    Args:
        config: The run's configuration.
        policy: Facts of the policy's model.
        engine: The rollout engine, ``vllm`` or ``transformers``.
    """
    return (
        ActorMemory(
            role="policy",
            num=config.policy.group.num_ranks,
            on_gpu=config.policy.group.gpus_per_rank > 0,
            parts=_learner(
                policy,
                config.policy.model,
                config.policy.pass_tokens,
                has_logits=True,
                on_gpu=config.policy.group.gpus_per_rank > 0,
            ),
        ),
        ActorMemory(
            role="rollout",
            num=config.rollout.num_workers,
            on_gpu=config.rollout.gpus_per_worker > 0,
            parts=_engine(config, policy, engine),
        ),
    )


def _learner(
    facts: ModelFacts, model: ModelConfig, tokens: int, *, has_logits: bool, on_gpu: bool
) -> dict[str, int]:
    compute, master = _BYTES[model.dtype], _BYTES[model.master]
    trained = facts.num_parameters if model.lora is None else adapter_parameters(facts, model.lora)
    copies = (
        0 if compute == master else 1
    )  # weights of another precision than the trained ones are kept beside them
    parts = {
        "process": _PROCESS,
        "weights": facts.num_parameters * compute + copies * trained * master,
        "gradients": trained * (master + copies * compute),
        "AdamW": 2 * trained * master,
        "activations": _activations(facts, model, tokens),
    }
    if has_logits:
        # The logits of a chunk, their log-softmax in float32, and its gradient.
        logits = min(tokens * _known(facts.architecture.vocab_size), _CHUNK[on_gpu])
        parts["logits"] = logits * (compute + 4 + 4)
    return parts


def pass_memory(facts: ModelFacts, model: ModelConfig, *, has_logits: bool, on_gpu: bool) -> tuple[int, int]:
    """What a model that trains takes beside its passes, in bytes, and what each token of a pass takes.

    The model's sizes must be known.
    """
    parts = _learner(facts, model, 1, has_logits=False, on_gpu=on_gpu)
    each = parts.pop("activations")
    if on_gpu:
        parts.pop("process")  # in main memory
    logits = _CHUNK[on_gpu] * (_BYTES[model.dtype] + 4 + 4) if has_logits else 0
    return sum(parts.values()) + logits, each


def cache_bytes(facts: ModelFacts, tokens: int, precision: Precision) -> int:
    """Keys and values of a sequence of so many tokens. The model's sizes must be known."""
    # Where it is not known how wide keys are, as wide as the model: grouped-query attention needs less.
    width = facts.architecture.key_value_width or _known(facts.architecture.hidden_size)
    return tokens * _known(facts.architecture.num_layers) * 2 * width * _BYTES[precision]


def _activations(facts: ModelFacts, model: ModelConfig, tokens: int) -> int:
    layer = tokens * _known(facts.architecture.hidden_size) * _BYTES[model.dtype]
    if model.gradient_checkpointing:  # the input of every layer, and one layer in full at a time
        return layer * (_known(facts.architecture.num_layers) + _ACTIVATION_WIDTHS)
    return layer * _known(facts.architecture.num_layers) * _ACTIVATION_WIDTHS


def _known(size: int | None) -> int:
    assert size is not None, "memory is estimated of models whose sizes are known"
    return size


def adapter_parameters(facts: ModelFacts, lora: LoraConfig) -> int:
    """About how many weights the adapters of a model have."""
    widths = (
        1 + (_MLP_WIDTH if name in {"gate_proj", "up_proj", "down_proj"} else 1)
        for name in lora.target_modules
    )
    return (
        _known(facts.architecture.num_layers)
        * lora.rank
        * _known(facts.architecture.hidden_size)
        * sum(widths)
    )


def _engine(config: RunConfig, facts: ModelFacts, engine: str) -> dict[str, int]:
    rollout = config.rollout
    number = _BYTES[rollout.dtype]
    if engine == "vllm" and rollout.gpus_per_worker == 0:
        cache = int(rollout.kv_cache_gib * GIB)
    else:
        longest = config.data.max_prompt_tokens + rollout.max_response_tokens
        cache = rollout.at_once * cache_bytes(facts, longest, rollout.dtype)
    return {"process": _PROCESS, "weights": facts.num_parameters * number, "key-value cache": cache}
