"""``gad-ray fit``: check the configuration, then fit, or only say what fitting would do."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TypeGuard, get_args

from gad_ray.config import FitMethod, load_config
from gad_ray.errors import ConfigError

METHODS: tuple[str, ...] = get_args(FitMethod)


def run_fit(method: str, recipe: str, overrides: Sequence[str], *, dry_run: bool, resume: str | None) -> int:
    """Fit the policy of a recipe or a file.

    Args:
        method: ``seqkd`` or ``soda``.
        recipe: Name of a packaged recipe or path of a YAML file.
        overrides: ``key=value`` in place of the file's settings.
        dry_run: Check and report only.
        resume: ``auto``, or a fit to go on with; a new one when None.

    Returns:
        The exit code: 0, 130 after SIGINT or 143 after SIGTERM.

    Raises:
        GadError: If anything needed cannot be used, or training cannot go on.
    """
    if not _is_method(method):
        close = difflib.get_close_matches(method, METHODS, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise ConfigError(f"'{method}' is no way to fit", hint=f"{hint}known ones: {', '.join(METHODS)}")
    config = load_config(recipe, overrides)
    is_named = any(override.partition("=")[0].strip() == "name" for override in overrides)
    if not is_named and not config.name.endswith(f"-{method}"):
        config = config.model_copy(update={"name": f"{config.name}-{method}"})
    if dry_run:
        if resume is not None:
            raise ConfigError("--dry-run and --resume exclude each other", hint="leave one of them out")
        from gad_ray.commands.dry_run import report

        return report(config, method)
    from gad_ray.controller.fit import fit

    return fit(config, method, resume=resume)


def _is_method(name: str) -> TypeGuard[FitMethod]:
    return name in METHODS
