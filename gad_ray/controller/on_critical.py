"""What a run does when a critical health rule begins to hold: go on, stop, or wait for its user."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

from gad_ray.controller.progress import Progress
from gad_ray.errors import HealthError
from gad_ray.findings import Severity
from gad_ray.health import RunFinding
from gad_ray.interrupt import StopRequest
from gad_ray.observability.run_dir import RunDirectory

_POLL_S = 1.0


def on_critical(
    findings: Sequence[RunFinding],
    *,
    how: Literal["continue", "stop", "pause"],
    directory: RunDirectory,
    progress: Progress,
    stop: StopRequest,
    save: Callable[[], None],
) -> None:
    """Answer the rules that began to hold with a step.

    Args:
        findings: Those rules.
        how: What to do if one of them is critical.
        directory: The run's, in which its user says that it may go on.
        progress: Where it is said what goes on.
        stop: Tells when a signal asks for the end.
        save: Saves the state as of that step.

    Raises:
        HealthError: If the run is to stop; the state is saved.
    """
    critical = [finding for finding in findings if finding.severity is Severity.CRITICAL]
    if not critical or how == "continue":
        return
    save()
    names = ", ".join(finding.rule for finding in critical)
    step = critical[0].step
    if how == "stop":
        progress.event("stopped", step=step, rules=[finding.rule for finding in critical])
        overrides = " ".join(dict.fromkeys(o for finding in critical for o in finding.overrides))
        answer = f"start anew with another setting, such as {overrides}; or " if overrides else ""
        raise HealthError(
            "; ".join(f"{finding.rule}: {finding.evidence}: {finding.meaning}" for finding in critical),
            where=f"step {step}",
            hint=f"{answer}go on all the same from the checkpoint of this step with --resume {directory.root}",
        )
    directory.resume_mark.unlink(missing_ok=True)
    progress.event("paused", step=step, rules=[finding.rule for finding in critical])
    progress.info(
        f"paused at step {step} by {names}; the state is saved. To go on: touch {directory.resume_mark}. To end: Ctrl-C"
    )
    with progress.pause(f"paused by {names}"):
        while not directory.resume_mark.exists() and stop.signal_number is None:
            time.sleep(_POLL_S)
    if stop.signal_number is None:
        directory.resume_mark.unlink(missing_ok=True)
        progress.event("resumed", step=step)
