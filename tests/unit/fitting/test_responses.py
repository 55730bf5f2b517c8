"""The student's responses on disk: parts add up, and settings do not mix."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gad_ray.errors import CheckpointError
from gad_ray.evaluation.heldout import save_rollouts
from gad_ray.fitting.responses import load_responses, open_responses
from gad_ray.models.chat import ChatFormat
from tests.unit.builders import prompt_batch, rollout_batch


def test_parts_come_back_as_one_and_say_which_prompts_are_answered(chat: ChatFormat, tmp_path: Path):
    directory = tmp_path / "responses"
    assert open_responses(directory, settings_hash="abc") == frozenset()
    prompts = prompt_batch()
    whole = rollout_batch(chat, prompts, texts=[("one",), ("two",), ("three",), ("four",)])
    for number, part in enumerate((prompts.examples[:3], prompts.examples[3:])):
        texts = [(text,) for text in whole.texts][3 * number :]
        answered = rollout_batch(chat, dataclasses.replace(prompts, examples=part), texts=texts)
        save_rollouts(directory / f"part-{number:06d}.parquet", answered)
    assert load_responses(directory).texts == whole.texts
    assert open_responses(directory, settings_hash="abc") == {example.id for example in prompts.examples}


def test_responses_drawn_with_other_settings_are_refused(tmp_path: Path):
    open_responses(tmp_path, settings_hash="abc")
    with pytest.raises(CheckpointError, match="drawn with other settings"):
        open_responses(tmp_path, settings_hash="def")
