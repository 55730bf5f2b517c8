"""A run's rows, with lengths in its policy's tokens."""

from __future__ import annotations

from pathlib import Path

from gad_ray.activity import activity
from gad_ray.config import RunConfig
from gad_ray.data.dataset import LoadedData, load_dataset
from gad_ray.models.chat import load_chat_format
from gad_ray.models.source import resolve_model


def load_run_data(config: RunConfig, *, quarantine_path: Path) -> LoadedData:
    """Read and check the rows of a run.

    Args:
        config: Says what to read, and which policy counts.
        quarantine_path: File for the rows that are not used; replaced if it exists.

    Raises:
        GadError: If the data or the policy's tokenizer cannot be used.
    """
    model = config.policy.model
    model_dir = resolve_model(model.model)
    with activity("reading the data"):
        chat = load_chat_format(model_dir, chat_template=model.chat_template)
        return load_dataset(
            config.data,
            count_prompt_tokens=lambda messages: len(chat.prompt_ids(messages)),
            count_response_tokens=lambda text: len(chat.response_ids(text)),
            quarantine_path=quarantine_path,
        )
