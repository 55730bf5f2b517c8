"""A run's rows, with lengths in its policy's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gad_ray.activity import activity
from gad_ray.batch import Message
from gad_ray.config import RunConfig
from gad_ray.data.dataset import LoadedData, load_dataset
from gad_ray.data.validate import PromptCounter
from gad_ray.models.chat import ChatFormat, configured_chat_format
from gad_ray.models.source import resolve_model


def prompt_counter(policy: ChatFormat, critic: ChatFormat | None) -> PromptCounter:
    """Counts a prompt's tokens as the policy reads it, once both models' templates have taken it.

    The counter raises a ``DataError`` where one of them refuses.
    """

    def count(messages: Sequence[Message]) -> int:
        if critic is not None and critic.template_text != policy.template_text:
            critic.prompt_text(messages)
        return len(policy.prompt_ids(messages))

    return count


def load_run_data(config: RunConfig, *, quarantine_path: Path, has_critic: bool = False) -> LoadedData:
    """Read and check the rows of a run.

    Args:
        config: Says what to read, and which policy counts.
        has_critic: Whether the run's critic reads the prompts too: its template is asked as well.
        quarantine_path: File for the rows that are not used; replaced if it exists.

    Raises:
        GadError: If the data or the policy's tokenizer cannot be used.
    """
    model = config.policy.model
    model_dir = resolve_model(model.model)
    with activity("reading the data"):
        chat = configured_chat_format(model_dir, model)
        judge = config.critic.model
        critic = configured_chat_format(resolve_model(judge.model), judge) if has_critic else None
        return load_dataset(
            config.data,
            count_prompt_tokens=prompt_counter(chat, critic),
            count_response_tokens=lambda text: len(chat.response_ids(text)),
            quarantine_path=quarantine_path,
        )
