"""What training asks of its models, beyond their loading: a dry run and a run check it by these functions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gad_ray.config import ModelConfig, RunConfig
from gad_ray.errors import ConfigError, DataError, GadError, ModelError
from gad_ray.models.architecture import check_keeps_cache, check_vocabulary, hidden_size_of
from gad_ray.models.chat import ChatFormat, configured_chat_format
from gad_ray.models.facts import ModelFacts
from gad_ray.models.load import apply_lora, load_backbone, load_causal_lm
from gad_ray.models.source import describe_model, resolve_model

if TYPE_CHECKING:
    from gad_ray.batch import Example

_logger = logging.getLogger(__name__)


def check_model(directory: Path, config: ModelConfig, *, role: str, engine: str) -> ChatFormat:
    """Load a model as its role would, but for the numbers of its weights.

    Args:
        directory: A Hugging Face directory.
        config: How it would be trained.
        role: ``policy`` or ``critic``.
        engine: The rollout engine, ``vllm`` or ``transformers``.

    Returns:
        Its tokenizer with its chat template.

    Raises:
        ModelError: As training would.
    """
    load = load_causal_lm if role == "policy" else load_backbone
    model: Any = load(
        directory,
        dtype=torch.float32,
        gradient_checkpointing=config.gradient_checkpointing,
        on_meta=True,
    )
    chat = configured_chat_format(directory, config)
    check_vocabulary(chat.largest_id, model.get_input_embeddings().num_embeddings, where=config.model)
    if role == "critic":
        hidden_size_of(model)
    elif engine == "transformers":
        check_keeps_cache(model, where=config.model)
    if config.lora is not None:
        apply_lora(
            model,
            rank=config.lora.rank,
            alpha=config.lora.alpha,
            target_modules=config.lora.target_modules,
        )
    return chat


def unknown_lengths(facts: Mapping[str, ModelFacts]) -> list[str]:
    """A warning for each model whose longest sequence is not known.

    Args:
        facts: Role → its model.
    """
    return [
        f"{role}: the config of {described.name} does not say how long a sequence it takes: lengths are not checked "
        "against it"
        for role, described in facts.items()
        if described.architecture.max_positions is None
    ]


def length_problems(config: RunConfig, facts: Mapping[str, ModelFacts]) -> list[GadError]:
    """What of a run's limits is longer than its models take.

    Args:
        config: The run.
        facts: Role → its model.
    """
    prompt, response = config.data.max_prompt_tokens, config.rollout.max_response_tokens
    problems: list[GadError] = []
    for role, described in facts.items():
        longest = described.architecture.max_positions
        if longest is None:
            continue
        if role == "policy" and prompt + response > longest:
            told = (
                f"data.max_prompt_tokens = {prompt} and rollout.max_response_tokens = {response} make "
                f"{prompt + response} tokens; {described.name} takes {longest}"
            )
            problems.append(ConfigError(told, hint="lower one of them"))
        if role == "critic" and config.critic.max_tokens > longest:
            told = f"critic.max_tokens = {config.critic.max_tokens}; {described.name} takes {longest}"
            problems.append(ConfigError(told, hint=f"set critic.max_tokens={longest} or less"))
    return problems


def check_teacher_lengths(
    config: RunConfig, policy: ModelFacts, chat: ChatFormat, examples: Sequence[Example]
) -> None:
    """Check that the policy takes every prompt with the teacher's response: it is fitted to them and judged on them.

    Raises:
        DataError: If it does not.
    """
    longest, data = policy.architecture.max_positions, config.data
    if longest is None or data.max_prompt_tokens + data.max_teacher_tokens < longest:
        return
    # One more ends the turn.
    lengths = {
        example.id: len(chat.prompt_ids(example.messages))
        + len(chat.response_ids(example.teacher_response))
        + 1
        for example in examples
    }
    too_long = [name for name, length in lengths.items() if length > longest]
    if too_long:
        worst = max(too_long, key=lengths.__getitem__)
        raise DataError(
            f"{len(too_long)} rows are longer with the teacher's response than the {longest} tokens that {policy.name} "
            f"takes; the longest, {worst!r}, has {lengths[worst]}",
            hint=f"lower data.max_prompt_tokens ({data.max_prompt_tokens}) or data.max_teacher_tokens "
            f"({data.max_teacher_tokens})",
        )


def check_probe(policy: ModelFacts, probe: Sized) -> None:
    """Check that the policy takes the text by which a rollout engine shows that it has taken new weights.

    Raises:
        ModelError: If it does not.
    """
    longest = policy.architecture.max_positions
    if longest is not None and len(probe) > longest:
        raise ModelError(
            f"{policy.name} takes {longest} tokens, and the text by which rollout proves new weights has {len(probe)}",
            hint="choose a policy that takes longer sequences",
        )


def check_lengths(
    config: RunConfig,
    examples: Sequence[Example],
    *,
    has_critic: bool,
    probe: Callable[[ChatFormat], Sized] | None = None,
) -> None:
    """Check that a run's models take sequences as long as it would give them; warn where that is not known.

    Args:
        config: The run.
        examples: Its rows.
        has_critic: Whether a critic is trained.
        probe: Gives the text by which a rollout engine shows that it has taken new weights, in a game.

    Raises:
        GadError: If one of them does not.
    """
    models = {"policy": config.policy.model, **({"critic": config.critic.model} if has_critic else {})}
    facts = {role: describe_model(model.model) for role, model in models.items()}
    for problem in length_problems(config, facts):
        raise problem
    for warning in unknown_lengths(facts):
        _logger.warning("warning: %s", warning)
    model = config.policy.model
    chat = configured_chat_format(resolve_model(model.model), model)
    check_teacher_lengths(config, facts["policy"], chat, examples)
    if probe is not None:
        check_probe(facts["policy"], probe(chat))
