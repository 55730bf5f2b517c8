"""A served critic as the commands use it: scores of pairs, and the fingerprint they were given under."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import numpy as np

from gad_ray.batch import Fingerprint, Float32
from gad_ray.models.pairs import Pair
from gad_ray.serving.client import ScoreClient
from gad_ray.serving.retry import EndpointError


class RemoteCritic:
    """The critic that an endpoint serves when this is made; scores of a later one are refused.

    Args:
        client: Speaks to the endpoint.
        where: Its URL.

    Raises:
        EndpointError: If the endpoint refuses, or cannot be reached.
    """

    def __init__(self, client: ScoreClient, where: str) -> None:
        self._client = client
        self.where = where
        card = client.model()
        self.dtype = card.dtype
        try:
            self.fingerprint = Fingerprint(**card.fingerprint_parts)
        except TypeError:
            raise EndpointError(
                "its fingerprint has other parts than are known here",
                where=where,
                hint="use the same version of gad-ray on both sides",
            ) from None

    @classmethod
    @contextmanager
    def at(cls, url: str, *, key_variable: str) -> Generator[RemoteCritic]:
        """The critic at a URL.

        Args:
            url: Of the service.
            key_variable: Environment variable with the key, where the service wants one.
        """
        with ScoreClient(url, key=os.environ.get(key_variable) or None) as client:
            yield cls(client, url)

    def score(self, pairs: Sequence[Pair]) -> Float32:
        """[N] float32 scores of pairs, all of this critic.

        Raises:
            EndpointError: If the endpoint refuses, cannot be reached, or serves another critic by now.
        """
        scores = self._client.score_pairs(pairs)
        others = {score.fingerprint for score in scores} - {self.fingerprint.digest}
        if others:
            raise EndpointError(
                "another critic is served than a moment ago", where=self.where, hint="ask once more"
            )
        return np.asarray([score.value for score in scores], dtype=np.float32)
