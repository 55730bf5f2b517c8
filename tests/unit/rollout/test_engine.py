import importlib.util

import pytest

from gad_ray.config.rollout import RolloutConfig
from gad_ray.errors import RolloutError
from gad_ray.rollout.engine import choose_engine


@pytest.fixture(params=[True, False])
def installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    found = object() if request.param else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found if name == "vllm" else 1 / 0)
    return request.param


def test_auto_is_vllm_where_it_is_installed(installed: bool):
    assert choose_engine(RolloutConfig(engine="auto")) == ("vllm" if installed else "transformers")


def test_transformers_is_what_it_says(installed: bool):
    assert choose_engine(RolloutConfig(engine="transformers")) == "transformers"


def test_vllm_is_refused_where_it_is_not_installed(installed: bool):
    if installed:
        assert choose_engine(RolloutConfig(engine="vllm")) == "vllm"
    else:
        with pytest.raises(RolloutError, match="vllm is not installed"):
            choose_engine(RolloutConfig(engine="vllm"))
