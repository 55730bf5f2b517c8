"""The critic that an endpoint serves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gad_ray.batch import Fingerprint, Float32
from gad_ray.client import EndpointError, ScoreClient
from gad_ray.config.critic import RemoteCriticSettings
from gad_ray.critics.base import CRITICS, export_settings
from gad_ray.models.pairs import Pair


class RemoteCritic:
    """The critic that an endpoint serves when this is made; scores of a later one are refused.

    Args:
        client: Speaks to the endpoint.
        settings: Where it is, for an export.

    Raises:
        EndpointError: If the endpoint refuses, or cannot be reached.
    """

    def __init__(self, client: ScoreClient, settings: RemoteCriticSettings) -> None:
        self._client = client
        self._settings = settings
        card = client.model()
        self.step = card.model_version.step
        try:
            self._fingerprint = Fingerprint(**card.fingerprint_parts)
        except TypeError:
            raise EndpointError(
                "its fingerprint has other parts than are known here",
                where=self.where,
                hint="use the same version of gad-ray on both sides",
            ) from None

    @property
    def where(self) -> str:
        """Its URL."""
        return self._settings.url

    def score(self, pairs: Sequence[Pair]) -> Float32:
        """[N] float32 scores of pairs, all of this critic.

        Raises:
            EndpointError: If the endpoint refuses, cannot be reached, or serves another critic by now.
        """
        scores = self._client.score_pairs(pairs)
        others = {score.fingerprint for score in scores} - {self._fingerprint.digest}
        if others:
            raise EndpointError(
                "another critic is served than a moment ago", where=self.where, hint="ask once more"
            )
        return np.asarray([score.value for score in scores], dtype=np.float32)

    def fingerprint(self) -> Fingerprint:
        """Digest of everything that its scores depend on."""
        return self._fingerprint

    def export(self, out_dir: Path) -> Fingerprint:
        """Write where it is and which one it was: its weights stay where they are."""
        return export_settings(self, self._settings, out_dir)


@CRITICS.register(RemoteCriticSettings)
def _open(settings: RemoteCriticSettings) -> RemoteCritic:
    return RemoteCritic(ScoreClient(settings.url, key=os.environ.get(settings.key_env) or None), settings)
