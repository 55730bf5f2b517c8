"""Three groups of three responses, for a policy to learn from."""

from __future__ import annotations

import pytest

from gad_ray.batch import PromptBatch, RolloutBatch
from gad_ray.models.chat import ChatFormat
from tests.unit.builders import prompt_batch, rollout_batch


@pytest.fixture(scope="module")
def prompts() -> PromptBatch:
    return prompt_batch(3)


@pytest.fixture(scope="module")
def rollouts(chat: ChatFormat, prompts: PromptBatch) -> RolloutBatch:
    return rollout_batch(chat, prompts)
