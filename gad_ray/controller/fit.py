"""``gad-ray fit``: the policy is fitted to fixed text, alone or as the warm start of a game."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from gad_ray.activity import activity
from gad_ray.actors.session import RaySession
from gad_ray.config import FitMethod, RunConfig, fit_hash, load_config
from gad_ray.controller.fitting import Fitting, prompt_cursor, read_position
from gad_ray.controller.progress import Progress
from gad_ray.controller.run_setup import interruptible, open_run
from gad_ray.data.dataset import LoadedData
from gad_ray.data.stats import describe
from gad_ray.errors import CheckpointError
from gad_ray.interrupt import StopRequest
from gad_ray.models.checks import check_lengths
from gad_ray.models.run_data import load_run_data
from gad_ray.observability.console import print_summary
from gad_ray.observability.files import write_text
from gad_ray.observability.run_dir import RunDirectory
from gad_ray.observability.summary import RunSummary, SummaryRow


@interruptible
def fit(stop: StopRequest, config: RunConfig, method: FitMethod, *, resume: str | None) -> int:
    """Fit the policy to fixed text, from the start or going on with an earlier fit.

    Args:
        stop: Given by the decorator: tells when a signal asks for the end.
        config: The run.
        method: How to fit.
        resume: None for a new fit, ``auto`` for the newest of the config's name, or its name or path.

    Returns:
        0 when it came to its end, 130 after SIGINT, 143 after SIGTERM.

    Raises:
        GadError: If anything needed cannot be used, or training cannot go on.
    """
    with activity("checking the configuration"):
        opened = open_run(config, resume, check=partial(read_position, method=method))
        config, directory = opened.config, opened.directory
    data = load_run_data(config, quarantine_path=directory.quarantine_jsonl)
    check_lengths(config, (*data.train, *data.heldout), has_critic=False)
    # Too few rows are told before Ray is touched.
    prompt_cursor(config, method, data)
    stop.abrupt = False
    with RaySession():
        # Ray handles SIGTERM by leaving at once.
        stop.listen()
        summary = _run(config, method, directory, data, stop, choices=opened.choices)
    if summary is None:
        assert stop.signal_number is not None
        return 128 + stop.signal_number
    print_summary(summary)
    return 0


def warm_start(
    config: RunConfig, method: FitMethod, *, directory: RunDirectory, data: LoadedData, stop: StopRequest
) -> RunConfig | None:
    """Fit the policy that a game starts from, unless that was done before. Ray must be connected.

    Args:
        config: The game's configuration.
        method: How to fit.
        directory: The game's directory; the fit lies within.
        data: Its prompts.
        stop: Tells when a signal asks for the end.

    Returns:
        The configuration with the fitted policy in the base model's place, or None if a signal ended it early.
    """
    place = directory.warm_start
    exported = place.exports / "policy"
    # Written last: what it tells of is all there.
    if place.summary_json.is_file():
        _require_same(place, config, method)
    else:
        place.prepare(config)
        if not _run(config, method, place, data, stop, resumable=directory.root):
            return None
    model = config.policy.model.model_copy(update={"model": str(exported)})
    return config.model_copy(update={"policy": config.policy.model_copy(update={"model": model})})


def _run(
    config: RunConfig,
    method: FitMethod,
    directory: RunDirectory,
    data: LoadedData,
    stop: StopRequest,
    *,
    resumable: Path | None = None,
    choices: Sequence[str] = (),
) -> RunSummary | None:
    """Fit, and give the account of it; None if a signal ended it early.

    Args:
        config: The run.
        method: How to fit.
        directory: Where everything is written.
        data: The prompts.
        stop: Tells when a signal asks for the end.
        resumable: The run that this is the warm start of. Its game answers the held-out prompts again.
        choices: What the machine decided and why.
    """
    steps = config.fit.of(method).in_steps(
        num_prompts=len(data.train), prompts_per_step=config.prompts_per_fit_step(method)
    )
    with Progress(config, directory, stage_steps={method: steps}) as progress:
        if resumable is None:
            for line in (*choices, *describe(data)):
                progress.info(line)
        fitting = Fitting(
            config, method, directory=directory, data=data, progress=progress, stop=stop, total_steps=steps
        )
        if not fitting.run():
            place = resumable or directory.root
            progress.info(f"stopped at step {fitting.step} of the fit; continue with --resume {place}")
            progress.event("stopped", step=fitting.step, signal=stop.signal_number)
            return None
        summary = fitting.account(answer_again=resumable is None)
        if resumable is not None:
            progress.info(f"warm start by {method}: {_told(summary.rows)}")
        write_text(directory.summary_json, summary.to_json())
    return summary


def _require_same(place: RunDirectory, config: RunConfig, method: FitMethod) -> None:
    """Raise if a finished warm start was made with other settings."""
    made = load_config(str(place.config_yaml))
    same = fit_hash(made, method) == fit_hash(config, method) and made.fit.of(method) == config.fit.of(method)
    if made.stages.warm_start != method or not same:
        raise CheckpointError(
            "the warm start was made with other settings",
            where=str(place.root),
            hint=f"resume with its own settings ({place.config_yaml}), or start a new run",
        )


def _told(rows: Sequence[SummaryRow]) -> str:
    parts = [f"{row.label} {row.before:.3f} → {row.after:.3f} {row.unit}" for row in rows]
    return "; ".join(parts) or "done"
