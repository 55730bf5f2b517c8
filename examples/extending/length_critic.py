"""A critic of one's own, which does not learn: it likes responses of a given length. See docs/extending/critic.md."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from gad_ray.batch import Fingerprint, Float32
from gad_ray.config.critic import FrozenCriticSettings
from gad_ray.critics import CRITICS
from gad_ray.critics.base import export_settings
from gad_ray.models.pairs import Pair


class LengthCriticSettings(FrozenCriticSettings):
    """−|words − wanted| / wanted."""

    name: str = "examples.extending.length_critic:LengthCriticSettings"
    words: int = Field(default=40, ge=1)
    """Words of the response that is liked best."""


@CRITICS.register(LengthCriticSettings)
class LengthCritic:
    """Implements :class:`gad_ray.critics.base.Critic`."""

    where, step = "a rule", 0

    def __init__(self, settings: LengthCriticSettings) -> None:
        self._settings = settings

    def score(self, pairs: Sequence[Pair]) -> Float32:
        """[N] float32 scores."""
        wanted = self._settings.words
        words = np.asarray([len(pair.response.split()) for pair in pairs], dtype=np.float32)
        return (-np.abs(words - wanted) / wanted).astype(np.float32)

    def fingerprint(self) -> Fingerprint:
        """All that a score depends on is the settings."""
        digest = hashlib.sha256(self._settings.model_dump_json().encode()).hexdigest()
        return Fingerprint(weights=digest, head="", template="", tokenizer="", pooling="", dtype="float32")

    def export(self, out_dir: Path) -> Fingerprint:
        """The settings are the critic."""
        return export_settings(self, self._settings, out_dir)
