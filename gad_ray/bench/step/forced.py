"""The usual engines with responses that end at the limit alone, so that every system writes as many tokens."""

from __future__ import annotations

from dataclasses import replace

from gad_ray.rollout.engine import EngineSetup, GeneratorEngine, open_engine


def vllm(setup: EngineSetup) -> GeneratorEngine:
    """The engine ``vllm``."""
    return _open("vllm", setup)


def transformers(setup: EngineSetup) -> GeneratorEngine:
    """The engine ``transformers``."""
    return _open("transformers", setup)


def _open(name: str, setup: EngineSetup) -> GeneratorEngine:
    config = setup.config.model_copy(update={"engine": name})
    return open_engine(replace(setup, config=config, stop_token_ids=()))
