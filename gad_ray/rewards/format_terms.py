"""The format terms of a reward, over the responses of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from gad_ray.batch import Example, Float32, FormatBatch, PromptBatch, RolloutBatch
from gad_ray.config.reward import (
    CustomTerm,
    FormatReward,
    LeakedControl,
    LengthWindow,
    NoRepetition,
    ParsedJson,
    RequiredPattern,
    RewardConfig,
    SameLanguage,
)
from gad_ray.core.rewards import (
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
from gad_ray.rewards.functions import UserFunction


@dataclass(frozen=True, slots=True)
class _Response:
    prompt: str
    text: str
    num_tokens: int


class FormatTerms:
    """Asks every format term for its value of every response, once.

    Args:
        config: The terms and their weights.

    Raises:
        ConfigError: If a function of the user's cannot be imported.
    """

    def __init__(self, config: RewardConfig) -> None:
        self._terms = [(term, _values_of(term)) for term in config.format]

    def __call__(self, prompts: PromptBatch, rollouts: RolloutBatch) -> FormatBatch:
        """Judge the form of every response.

        Args:
            prompts: The step's prompts; a term that looks at the prompt is given the text of its last message.
            rollouts: The responses.
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
        for term, values_of in self._terms:
            values = np.asarray(values_of(responses), dtype=np.float32)
            total += np.float32(term.weight) * values
            by_name.setdefault(term.name, []).append(values)
        means = {name: np.stack(values).mean(axis=0) for name, values in by_name.items()}
        return FormatBatch(total=total, values=means)


def check_failures(total: Float32, config: RewardConfig) -> None:
    """Check that no more responses of a step lack a reward than may.

    Args:
        total: [R] weighted sum of the format terms; NaN where a function failed.
        config: Says how many may.

    Raises:
        TrainingError: If functions of the user's failed on a larger share of the responses than is allowed.
    """
    num_failed = int(np.isnan(total).sum())
    if num_failed > config.max_failed_fraction * len(total):
        functions = [term.function for term in config.format if isinstance(term, CustomTerm)]
        raise TrainingError(
            f"{num_failed} of {len(total)} responses have no reward, more than reward.max_failed_fraction = "
            f"{config.max_failed_fraction:g} allows: {' or '.join(functions)} failed on them",
            where="reward.format",
            hint="see logs/rewards-0.log for how; mend the function, or raise reward.max_failed_fraction",
        )


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
    """Call reward functions of the user's on a prompt with its teacher's response, once each.

    Args:
        config: Names the functions.
        example: The prompt.
        only_declared: Call none but those that are declared to be rewards.

    Raises:
        ConfigError: If one cannot be imported, fails, or gives what is no reward.
    """
    prompt, response = example.messages[-1].content, example.teacher_response
    for term in config.format:
        if not isinstance(term, CustomTerm):
            continue
        if only_declared and not is_declared(load_reward_function(term.function)):
            continue
        (value,) = UserFunction(term).answers([(prompt, response)])
        if isinstance(value, str):
            raise ConfigError(
                f"the reward function '{term.function}' {value}, on the teacher's response to prompt {example.id!r}",
                where="reward.format",
                hint=f"let it give one number from {term.low:g} to {term.high:g}, or set low and high",
            )


def _values_of(term: FormatReward) -> Callable[[list[_Response]], list[float]]:
    """What a term gives for responses; NaN where a function of the user's failed."""
    if isinstance(term, CustomTerm):
        function = UserFunction(term)
        return lambda responses: function([(r.prompt, r.text) for r in responses])
    one = _value_of(term)
    return lambda responses: [one(response) for response in responses]


def _value_of(
    term: NoRepetition | RequiredPattern | ParsedJson | LeakedControl | LengthWindow | SameLanguage,
) -> Callable[[_Response], float]:
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
        case SameLanguage():
            return lambda r: same_language(r.prompt, r.text)
        case _:
            assert_never(term)
