"""``gad-ray train``: check the configuration, then train, or only say what training would do."""

from __future__ import annotations

from collections.abc import Sequence

from gad_ray.config import load_config
from gad_ray.errors import ConfigError


def run_training(recipe: str, overrides: Sequence[str], *, dry_run: bool, resume: str | None) -> int:
    """Train from a recipe or a file.

    Args:
        recipe: Name of a packaged recipe or path of a YAML file.
        overrides: ``key=value`` in place of the file's settings.
        dry_run: Check and report only.
        resume: ``auto``, or a run to go on with; a new run when None.

    Returns:
        The exit code: 0, 130 after SIGINT or 143 after SIGTERM.

    Raises:
        GadError: If anything needed cannot be used, or training cannot go on.
    """
    config = load_config(recipe, overrides)
    if dry_run:
        if resume is not None:
            raise ConfigError("--dry-run and --resume exclude each other", hint="leave one of them out")
        from gad_ray.commands.dry_run import report

        return report(config)
    from gad_ray.controller.train import train

    return train(config, resume=resume)
