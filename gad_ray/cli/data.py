"""What makes training data, and what judges them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
    from gad_ray.commands.collect import run_collection
    from gad_ray.data.collect import CollectSettings

    run_collection(
        CollectSettings(
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
    )


def data_report(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILES", help="Parquet or JSONL, globs, package:NAME, or a run's records."),
    ],
    policy: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The student: counts tokens, and answers where rows do not."),
    ] = None,
    critic: Annotated[
        Path | None, typer.Option(metavar="DIR", help="An exported critic, to score both sides.")
    ] = None,
    heldout: Annotated[
        list[str] | None, typer.Option(metavar="FILES", help="Held-out rows to look for; may be repeated.")
    ] = None,
    sample: Annotated[
        int, typer.Option(min=1, max=100_000, help="Prompts to be answered by the policy or scored.")
    ] = 200,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer of the policy.")] = 512,
    temperature: Annotated[float, typer.Option(min=0.0, max=10.0, help="Sampling; 0 is greedy.")] = 0.8,
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0, help="Nucleus mass.")] = 1.0,
    engine: Annotated[
        str, typer.Option(metavar="auto|vllm|transformers", help="What the policy answers with.")
    ] = "auto",
    chat_template: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="The policy's, where its own is not meant.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=ROLE", help="What a column is, as data.columns says it; may be repeated."),
    ] = None,
    thoughts: Annotated[
        str, typer.Option(metavar="refuse|strip|keep", help="A teacher's <think> blocks, as data.thoughts.")
    ] = "refuse",
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of draws and intervals.")] = 0,
    out: Annotated[Path | None, typer.Option(metavar="HTML", help="Write the report as one page.")] = None,
    as_json: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Write all figures and findings.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if a finding is critical.")] = False,
) -> None:
    """Say what is wrong with data: rows, text, duplicates, and what tells teacher from student without reading."""
    from gad_ray.commands.data_report import layout_from, report_on_data
    from gad_ray.quality.settings import PolicySettings, ReportSettings

    student = policy and PolicySettings(
        model=policy,
        chat_template=chat_template,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        engine=engine,
    )
    settings = ReportSettings(
        files=tuple(files),
        heldout=tuple(heldout or ()),
        policy=student or None,
        critic=critic,
        num_drawn=sample,
        seed=seed,
        layout=layout_from(column or (), thoughts),
    )
    raise typer.Exit(report_on_data(settings, out=out, as_json=as_json, strict=strict))
