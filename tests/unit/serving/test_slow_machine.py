"""A critic that is too slow for a large request, over real HTTP: the client's large call ends all the same."""

import asyncio
import time
from collections.abc import Sequence

import numpy as np
import pytest

from gad_ray.client.retry import ClientSettings
from gad_ray.client.score_client import ScoreClient
from gad_ray.config.endpoint import BatchSettings, Limits
from gad_ray.critics.value_head import ValueHeadCritic
from gad_ray.models.critic import CriticModel
from gad_ray.models.pairs import TokenRow
from gad_ray.serving.application.loaded_critic import RowScore, ServedCritic
from tests.unit.builders import pair
from tests.unit.serving.listening import listening
from tests.unit.serving.metric_library import MetricLibrary

ROW_S = 0.05
TIMEOUT_S = 0.75
EQUAL = 3
PAIRS = [pair("Hello!", f"{i} and {i + 1}{' or so' * (i % 5)}") for i in range(30)]
PAIRS += PAIRS[:EQUAL]


class Slow(ServedCritic):
    """Takes its time for every row, as a larger model would."""

    def score_rows(self, rows: Sequence[TokenRow]) -> list[RowScore]:
        time.sleep(ROW_S * len(rows))
        return super().score_rows(rows)


@pytest.mark.parametrize("way", ["waiting", "asynchronous"])
def test_a_call_that_takes_twice_as_long_as_a_request_may_is_answered_whole(critic: CriticModel, way: str):
    served = Slow(ValueHeadCritic(model=critic, step=12, temperature=2.0))
    library = MetricLibrary()
    limits, batching = Limits(request_timeout_s=TIMEOUT_S), BatchSettings(max_batch_tokens=64)

    def call(url: str) -> list[float]:
        if way == "waiting":
            with ScoreClient(url) as client:
                return [score.value for score in client.score_pairs(PAIRS)]

        async def run() -> list[float]:
            async with ScoreClient(url, settings=ClientSettings(concurrency=2)) as client:
                return [score.value for score in await client.score_pairs_async(PAIRS)]

        return asyncio.run(run())

    with listening(served, metrics=library, limits=limits, batching=batching) as url:
        found = call(url)
    wanted = critic.score(PAIRS, micro_batch_tokens=8192)
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=0)
    assert found[:EQUAL] == found[-EQUAL:], (
        "equal pairs of one call, at both ends of what is asked for in parts"
    )
    asked = {labels[1]: count for (name, labels), count in library.totals.items() if name == "gad_serve_requests"}  # fmt: skip
    assert asked["408"] >= 1, "the first cannot know, and is lost"
    assert asked["200"] >= 3
    assert set(asked) <= {"200", "408", "413", "429"}
