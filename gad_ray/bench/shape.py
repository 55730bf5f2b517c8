"""The size of a step, as commands take it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gad_ray.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Shape:
    """Prompts of a step × responses to each × tokens of a response."""

    prompts: int
    responses: int
    tokens: int

    @classmethod
    def parse(cls, text: str) -> Shape:
        """From ``4x4x48``.

        Raises:
            ConfigError: If it is none.
        """
        found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text)
        if found is None or int(found[2]) < 2:
            raise ConfigError(
                f"{text!r} is no shape",
                where="--shape",
                hint="give prompts × responses (2 or more) × tokens, as 4x4x48",
            )
        return cls(*(int(number) for number in found.groups()))

    def __str__(self) -> str:
        return f"{self.prompts}x{self.responses}x{self.tokens}"
