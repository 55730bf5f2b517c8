"""Tiny models that the tests of models, learners and engines share; nobody writes into their directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from gad_ray.models.chat import ChatFormat, load_chat_format
from tests.tiny import make_tiny_model


@pytest.fixture(scope="session")
def tied_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose output head is its embedding."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tied")


@pytest.fixture(scope="session")
def untied_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with an output head of its own, and other weights."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "untied", tied=False, seed=7)


@pytest.fixture(scope="session")
def chat(tied_model: Path) -> ChatFormat:
    """Tokenizer and template of both models."""
    return load_chat_format(tied_model)
