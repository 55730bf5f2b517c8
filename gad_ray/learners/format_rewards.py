"""The format terms of a reward, over the responses of a step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from gad_ray.batch import Example, Float32, PromptBatch, RolloutBatch
from gad_ray.config.reward import (
    CustomTerm,
    FormatReward,
    LeakedControl,
    LengthWindow,
    NoRepetition,
    ParsedJson,
    RequiredPattern,
    RewardConfig,
)
from gad_ray.core.rewards import (
    call_reward_function,
    is_declared,
    leaked_control,
    length_window,
    load_reward_function,
    no_repetition,
    parsed_json,
    required_pattern,
    same_language,
)
from gad_ray.errors import ConfigError, TrainingError

_logger = logging.getLogger(__name__)
_FAILED = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatTerms:
    """Values of the format terms.

    Attributes:
        total: [R] float32 weighted sum; NaN where a function of the user's failed.
        values: Name of a term → [R] float32 values before the weight; of several terms of one name, their mean.
    """

    total: Float32
    values: Mapping[str, Float32]


@dataclass(frozen=True, slots=True)
class _Response:
    prompt: str
    text: str
    num_tokens: int


def check_reward_functions(config: RewardConfig) -> dict[str, bool]:
    """Import every reward function of the user's, which runs its module; none is called.

    Returns:
        Name of each → whether it is declared to be a reward.

    Raises:
        ConfigError: If one cannot be imported, or does not take a prompt and a response.
    """
    names = [term.function for term in config.format if isinstance(term, CustomTerm)]
    return {name: is_declared(load_reward_function(name)) for name in names}


def try_reward_functions(config: RewardConfig, example: Example, *, only_declared: bool = False) -> None:
    """Call reward functions of the user's twice on a prompt with its teacher's response.

    Args:
        config: Names the functions.
        example: The prompt.
        only_declared: Call none but those that are declared to be rewards.

    Raises:
        ConfigError: If one cannot be imported, fails, gives what is no reward, or gives two different numbers.
    """
    prompt, response = example.messages[-1].content, example.teacher_response
    for term in config.format:
        if not isinstance(term, CustomTerm):
            continue
        function = load_reward_function(term.function)
        if only_declared and not is_declared(function):
            continue
        first, second = (
            call_reward_function(function, prompt, response, low=term.low, high=term.high) for _ in range(2)
        )
        told = next((value for value in (first, second) if isinstance(value, str)), None)
        if told is None and first != second:
            told = f"gave {first}, and then {second}"
        if told is not None:
            raise ConfigError(
                f"the reward function '{term.function}' {told}, on the teacher's response to prompt {example.id!r}",
                where="reward.format",
                mend=f"let it give one number from {term.low:g} to {term.high:g} for the same texts, or set low and high",
            )


def format_terms(rollouts: RolloutBatch, config: RewardConfig, prompts: PromptBatch) -> FormatTerms:
    """Judge the form of every response.

    Args:
        rollouts: The responses.
        config: The terms and their weights.
        prompts: The step's prompts; a term that looks at the prompt is given the text of its last message.

    Raises:
        TrainingError: If functions of the user's failed on a larger share of the responses than is allowed.
    """
    asked = {example.id: example.messages[-1].content for example in prompts.examples}
    responses = [
        _Response(asked[example_id], text, int(length))
        for example_id, text, length in zip(
            rollouts.example_ids, rollouts.texts, rollouts.text_lengths, strict=True
        )
    ]
    total = np.zeros(len(rollouts), dtype=np.float32)
    by_name: dict[str, list[Float32]] = {}
    for term in config.format:
        judge = _judge_of(term)
        values = np.asarray([judge(response) for response in responses], dtype=np.float32)
        total += np.float32(term.weight) * values
        by_name.setdefault(term.name, []).append(values)
    _check_failures(total, config)
    means = {name: np.stack(values).mean(axis=0) for name, values in by_name.items()}
    return FormatTerms(total=total, values=means)


def _check_failures(total: Float32, config: RewardConfig) -> None:
    num_failed = int(np.isnan(total).sum())
    if num_failed > config.max_failed_fraction * len(total):
        functions = [term.function for term in config.format if isinstance(term, CustomTerm)]
        raise TrainingError(
            f"{num_failed} of {len(total)} responses have no reward, more than reward.max_failed_fraction = "
            f"{config.max_failed_fraction:g} allows: {' or '.join(functions)} failed on them",
            where="reward.format",
            mend="see the critic actor's log for how; mend the function, or raise reward.max_failed_fraction",
        )


def _judge_of(term: FormatReward) -> Callable[[_Response], float]:
    """The function of one response that a term stands for."""
    match term:
        case NoRepetition(ngram=ngram):
            return lambda r: no_repetition(r.text, ngram=ngram)
        case RequiredPattern(regex=regex):
            return lambda r: required_pattern(r.text, regex=regex)
        case ParsedJson(required_keys=keys):
            return lambda r: parsed_json(r.text, required_keys=keys)
        case LeakedControl():
            return lambda r: leaked_control(r.text, timestamps=term.timestamps, markers=term.markers)
        case LengthWindow():
            return lambda r: length_window(
                r.num_tokens,
                max_tokens=term.max_tokens,
                soft_tokens=term.soft_tokens,
                min_tokens=term.min_tokens,
            )
        case CustomTerm():
            return lambda r: _ask(term, r)
        case _:
            return lambda r: same_language(r.prompt, r.text)


def _ask(term: CustomTerm, response: _Response) -> float:
    """The user's function on one response; NaN, and a line in the log, where it failed."""
    function = load_reward_function(term.function)
    value = call_reward_function(function, response.prompt, response.text, low=term.low, high=term.high)
    if isinstance(value, str):
        _logger.warning("reward function %s %s; the response is left out", term.function, value)
        return _FAILED
    return value
