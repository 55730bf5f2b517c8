"""``python -m examples.toy``: the toy, in seconds on a CPU."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from examples.toy.game import MODES, ToyResult, play_toy
from examples.toy.plot import draw_toy
from gad_ray.activity import activity, tells
from gad_ray.cli import run
from gad_ray.errors import ConfigError
from gad_ray.observability.files import replacing, write_text

Directory = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where figures and pictures go.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Of everything that is drawn.")]


app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(out: Directory = Path("demo"), seed: Seed = 0) -> None:
    """A teacher with two modes and a student with one: SeqKD covers, the game seeks. Seconds on a CPU."""
    run_toy(out, seed=seed)


@tells
def run_toy(out: Path, *, seed: int) -> None:
    """Play the toy, print its figures, and write ``toy.json`` and ``toy.png``.

    Args:
        out: Directory to write to; made if need be.
        seed: Of samples and start.

    Raises:
        ConfigError: If the directory cannot be written to.
    """

    def table(result: ToyResult) -> Table:
        sides = (result.teacher, result.seqkd, result.game)
        shown = Table("", "teacher", "SeqKD", "game", title=f"the toy, seed {seed}")
        for index, probabilities in enumerate(zip(*(s.probabilities for s in sides), strict=True)):
            shown.add_row(f"class {index}", *(f"{p:.3f}" for p in probabilities), end_section=index == 9)
        shown.add_row("mean", *(f"{s.mean:.2f}" for s in sides))
        shown.add_row("standard deviation", *(f"{s.std:.2f}" for s in sides))
        for i, mode in enumerate(MODES):
            shown.add_row(f"mass on the mode at {mode:g}", *(f"{s.mode_mass[i]:.3f}" for s in sides))
        shown.add_row("modes covered", *(str(s.modes_covered) for s in sides))
        shown.add_row("KL(teacher‖student), nats", *(f"{s.forward_kl:.3f}" for s in sides))
        shown.add_row("KL(student‖teacher), nats", *(f"{s.reverse_kl:.3f}" for s in sides))
        return shown

    _make(out)
    with activity("playing the toy"):
        result = play_toy(seed=seed)
    console = Console()
    console.print(table(result))
    try:
        write_text(out / "toy.json", json.dumps(asdict(result), indent=1))
        with replacing(out / "toy.png") as staging:
            draw_toy(result, staging)
    except OSError as error:
        raise _unwritable(out, error) from error
    console.print(f"wrote {out / 'toy.png'} and {out / 'toy.json'}", soft_wrap=True)


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(out, error) from error


def _unwritable(out: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot be written to: {error.strerror}", where=str(out), hint="give another --out")


if __name__ == "__main__":
    run(app, "python -m examples.toy")
