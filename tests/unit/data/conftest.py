"""Files of rows, and checks that count words instead of tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gad_ray.batch import Message
from gad_ray.config.data import DataConfig
from gad_ray.data.dataset import LoadedData, load_dataset

Row = Mapping[str, Any]
WriteJsonl = Callable[[str, Iterable[Row]], Path]
Load = Callable[..., LoadedData]


def count_prompt_words(messages: tuple[Message, ...]) -> int:
    return sum(len(message.content.split()) for message in messages)


def count_words(text: str) -> int:
    return len(text.split())


@pytest.fixture
def write_jsonl(tmp_path: Path) -> WriteJsonl:
    def write(name: str, rows: Iterable[Row]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load with a config of the keywords given; paths may be Path; one word is one token."""

    def load_with(*train: Path | str, **settings: Any) -> LoadedData:
        if "heldout" in settings:
            settings["heldout"] = tuple(str(path) for path in settings["heldout"])
        return load_dataset(
            DataConfig(train=tuple(str(path) for path in train), **settings),
            count_prompt_tokens=count_prompt_words,
            count_response_tokens=count_words,
            quarantine_path=tmp_path / "out" / "quarantine.jsonl",
        )

    return load_with
