"""The usual engine with responses that end at the limit alone, so that every system writes as many tokens."""

from __future__ import annotations

from dataclasses import replace

from gad_ray.rollout import engine
from gad_ray.rollout.engine import EngineSetup, GeneratorEngine


def open_engine(setup: EngineSetup) -> GeneratorEngine:
    """The engine that ``auto`` comes to, told of no token that ends a response."""
    config = setup.config.model_copy(update={"engine": "auto"})
    return engine.open_engine(replace(setup, config=config, stop_token_ids=()))
