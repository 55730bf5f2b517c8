"""``gad-ray data collect``: a collection with a progress bar, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gad_ray.activity import activity, telling, waiting


def data_collect(
    model: Annotated[str, typer.Option(metavar="NAME", help="The teacher, as the endpoint calls it.")],
    source: Annotated[
        Path, typer.Option("--in", metavar="JSONL", help="Prompts: content, prompt or messages.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="PARQUET", help="Where the pairs go; journal and rejects lie beside.")
    ],
    endpoint: Annotated[
        str,
        typer.Option(
            metavar="URL", help="Base URL of an OpenAI-compatible endpoint, e.g. http://host:8000/v1."
        ),
    ] = "",
    url: Annotated[
        str,
        typer.Option(metavar="URL", help="URL of its chat completions, as it is, in place of --endpoint."),
    ] = "",
    teacher: Annotated[
        str, typer.Option(help="Name recorded as the teacher; the model's when left out.")
    ] = "",
    api_key_env: Annotated[
        str, typer.Option(metavar="VARIABLE", help="Environment variable that holds the key.")
    ] = "OPENAI_API_KEY",
    system_prompt: Annotated[str | None, typer.Option(help="Put before every prompt.")] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Sampling temperature; 0 is greedy. Sent only if it is set, as the next four."),
    ] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus mass.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Longest answer; one that reaches it is rejected as cut.")
    ] = None,
    max_tokens_field: Annotated[
        str,
        typer.Option(
            metavar="auto|max_tokens|max_completion_tokens", help="What the endpoint calls --max-tokens."
        ),
    ] = "auto",
    seed: Annotated[int | None, typer.Option(help="Sampling seed.")] = None,
    concurrency: Annotated[int, typer.Option(help="Requests under way at once.")] = 8,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Time limit of one request.")] = 120.0,
    max_attempts: Annotated[
        int, typer.Option(help="Attempts for one prompt before it counts as failed.")
    ] = 6,
    retry_rejected: Annotated[
        bool, typer.Option("--retry-rejected", help="Ask again for what an earlier call rejected.")
    ] = False,
) -> None:
    """Ask a teacher for its answers. Called again after a break, it asks only for what is missing."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from gad_ray.data.collect import CollectProgress, CollectSettings, collect

    settings = CollectSettings(
        endpoint=endpoint,
        model=model,
        input=source,
        output=out,
        teacher=teacher,
        api_key_env=api_key_env,
        system_prompt=system_prompt,
        temperature=temperature,
        top_p=top_p,
        max_tokens=max_tokens,
        max_tokens_field=max_tokens_field,
        seed=None if seed is None or seed < 0 else seed,
        exact_url=url,
        retry_rejected=retry_rejected,
        concurrency=concurrency,
        timeout_s=timeout,
        max_attempts=max_attempts,
    )
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
