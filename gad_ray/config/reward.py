"""The reward: the critic's score, and format terms beside it."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from gad_ray.strict_model import StrictModel


class _Term(StrictModel):
    """What the format terms share."""

    weight: float = Field(default=1.0, ge=0.0)
    """Weight in the reward."""


class NoRepetition(_Term):
    """Share of distinct n-grams among all n-grams of the response, minus one: 0 when none repeats."""

    name: Literal["no_repetition"] = "no_repetition"
    ngram: int = Field(default=4, ge=1)
    """Length n of the word n-grams."""


class RequiredPattern(_Term):
    """1 if a regular expression is found in the response, else 0."""

    name: Literal["pattern"] = "pattern"
    regex: str = Field(min_length=1)
    """Python regular expression; anchor it (``^`` and ``$``) to have it cover the whole response. One that
    backtracks without end on some text holds up the run: there is no time limit."""

    @field_validator("regex")
    @classmethod
    def _compiles(cls, regex: str) -> str:
        try:
            re.compile(regex)
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from None
        return regex


class ParsedJson(_Term):
    """1 if the whole response is JSON (with the required keys, if there are any), else 0."""

    name: Literal["json"] = "json"
    required_keys: tuple[str, ...] = ()
    """Keys that the object must have; with any given, only an object will do."""


class LeakedControl(_Term):
    """−1 if the response spells out control text of a chat template, or a timestamp; else 0."""

    name: Literal["leaked_control"] = "leaked_control"
    timestamps: bool = True
    """Whether dates with a time of day, and bracketed times as in transcripts, count as leaked."""

    markers: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Further texts that must not occur, beside the control tokens of the common templates."""


class LengthWindow(_Term):
    """0 for a length within the window, down to −1 outside it, in the policy's tokens without the end of turn.

    Towards ``max_tokens`` the penalty grows over the last ``soft_tokens`` (the soft overlong punishment of
    DAPO, 2503.14476); below ``min_tokens`` it grows evenly down to an empty response.
    """

    name: Literal["length_window"] = "length_window"
    max_tokens: int = Field(ge=1)
    """Length above which the penalty is whole."""

    soft_tokens: int = Field(default=0, ge=0)
    """Tokens before ``max_tokens`` over which it grows; 0: all at once."""

    min_tokens: int = Field(default=0, ge=0)
    """Length below which there is a penalty; 0: none."""

    @model_validator(mode="after")
    def _the_window_is_open(self) -> Self:
        if self.soft_tokens + self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens = {self.min_tokens} lies above max_tokens − soft_tokens = "
                f"{self.max_tokens - self.soft_tokens}: no length is free of penalty"
            )
        return self


class SameLanguage(_Term):
    """Share of the response's letters in the script that most of the prompt's letters are in, from 0 to 1.

    Scripts, not languages: English and French are alike to it, and a prompt that asks for a translation into
    another script is judged by its own.
    """

    name: Literal["language"] = "language"


class CustomTerm(_Term):
    """A function of yours: (prompt, response) → a number; both are text. It may be ``async``.

    It has to be importable in every actor: installed, or on PYTHONPATH. It is asked once for each response. A response for
    which it raises, gives nothing in time, or gives anything but a number within the bounds, is counted and left out of the
    policy's update. A dry run imports its module, and calls it only if it is declared with ``@reward_function`` of
    ``gad_ray.core.rewards``.
    """

    name: Literal["custom"] = "custom"
    function: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """``module:function``."""

    low: float = -1.0
    """Smallest value that it may give."""

    high: float = 1.0
    """Largest value that it may give."""

    deadline_s: float = Field(default=60.0, gt=0.0)
    """Longest that it may take for a response, in seconds."""

    retries: int = Field(default=0, ge=0)
    """Times that it is asked again for a response on which it failed."""

    concurrency: int = Field(default=16, ge=1)
    """Responses that an ``async`` function is asked for at the same time; any other is asked for one after the other."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low} is not below high = {self.high}")
        return self


FormatReward = Annotated[
    NoRepetition | RequiredPattern | ParsedJson | LeakedControl | LengthWindow | SameLanguage | CustomTerm,
    Field(discriminator="name"),
]
"""One format term; ``name`` says which."""


class RewardConfig(StrictModel):
    """r = discriminator_weight · D(x, y) + Σ weight_i · f_i(y)."""

    discriminator_weight: float = Field(default=1.0, ge=0.0)
    format: tuple[FormatReward, ...] = ()
    max_failed_fraction: float = Field(default=0.2, ge=0.0, le=1.0)
    """Share of a step's responses on which a function of yours may fail, above which the run stops."""

    @model_validator(mode="after")
    def _something_is_rewarded(self) -> Self:
        if self.discriminator_weight == 0.0 and not any(f.weight > 0 for f in self.format):
            raise ValueError("discriminator_weight is 0 and no format reward has weight: nothing is rewarded")
        return self
