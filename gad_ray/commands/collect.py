"""``gad-ray data collect``: a collection with a progress bar, and what came of it."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gad_ray.activity import activity, telling, waiting
from gad_ray.data.collect import CollectProgress, CollectSettings, collect


def run_collection(settings: CollectSettings) -> None:
    """Collect a teacher's answers and print where they lie.

    Args:
        settings: What to ask whom.

    Raises:
        GadError: As ``collect`` raises it.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[trouble]}"),
    )
    told = "the first answer"
    with (
        telling() as teller,
        activity(f"asking {settings.model} for answers", told=not console.is_terminal),
        waiting(lambda: told),
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
    ):
        teller.shown = console.is_terminal
        task = bar.add_task("answers", total=None, trouble="")

        def show(progress: CollectProgress) -> None:
            nonlocal told
            trouble = f"{progress.num_rejected} rejected, {progress.num_retries} retries"
            told = f"answers: {progress.num_done} of {progress.num_prompts} are there, {trouble}"
            bar.update(task, completed=progress.num_done, total=progress.num_prompts, trouble=trouble)

        report = collect(settings, on_progress=show)
    rejected = ", ".join(f"{count} {reason}" for reason, count in report.num_rejected.items())
    resumed = f", {report.num_resumed} of them from an earlier call" if report.num_resumed else ""
    console.print(
        f"{report.num_pairs} of {report.num_prompts} prompts answered{resumed}: {report.output}",
        soft_wrap=True,
    )
    if rejected:
        console.print(f"kept out: {rejected}: {report.rejected}", soft_wrap=True)
    console.print(
        f"{report.completion_tokens} tokens in {report.elapsed_s:.0f} s, {report.num_retries} retries",
        soft_wrap=True,
    )
