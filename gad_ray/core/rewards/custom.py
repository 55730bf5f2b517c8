"""Reward functions of the user's own, by import path."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from functools import cache
from numbers import Real
from typing import TypeVar

from gad_ray.errors import ConfigError

RewardFunction = Callable[[str, str], object]
"""(prompt, response) → a number."""


_DECLARED = "gad_ray_reward"

_F = TypeVar("_F", bound=RewardFunction)


def reward_function(function: _F) -> _F:
    """Declare a function to be a reward: a dry run may call it. A run calls any function that its config names."""
    setattr(function, _DECLARED, True)
    return function


def is_declared(function: RewardFunction) -> bool:
    """Whether a function is declared by :func:`reward_function`."""
    return getattr(function, _DECLARED, False) is True


@cache
def load_reward_function(path: str) -> RewardFunction:
    """The function that ``module:function`` names. Its module is imported, which runs it; the function is not called.

    Raises:
        ConfigError: If the module cannot be imported or has no such function, or it does not take two texts.
    """
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(
            f"the module '{module_name}' of the reward function '{path}' cannot be imported: "
            f"{type(error).__name__}: {error}",
            where="reward.format",
            hint="install it, or put its directory on PYTHONPATH",
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        what = "no such name" if function is None else f"a {type(function).__name__} of that name"
        raise ConfigError(
            f"the reward function '{path}' is none: '{module_name}' has {what}",
            where="reward.format",
            hint="name a function of two arguments, prompt and response",
        )
    if (signature := _signature_of(function)) is not None:
        try:
            signature.bind("a prompt", "a response")
        except TypeError as error:
            raise ConfigError(
                f"the reward function '{path}' has the arguments {signature}, and is called with two texts, prompt "
                f"and response: {error}",
                where="reward.format",
                hint="let it take prompt and response, in that order, and nothing else that has no default",
            ) from None
    return function


def _signature_of(function: Callable[..., object]) -> inspect.Signature | None:
    """A function's arguments; None for what does not tell them, as some of C do not."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def reward_value(value: object, *, low: float, high: float) -> float | str:
    """What a function gave, as a number, or why that cannot be used.

    Args:
        value: What it gave.
        low: Smallest value that it may give.
        high: Largest value that it may give.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        return f"gave a {type(value).__name__}, not a number"
    number = float(value)
    if not low <= number <= high:  # NaN is not either
        return f"gave {number}, which is not between {low} and {high}"
    return number
