"""``python -m examples.failures``: the field's failures on a small real model."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from examples.failures.finding import Finding
from gad_ray.activity import doing, tells
from gad_ray.cli import run
from gad_ray.errors import ConfigError
from gad_ray.observability.files import write_text

Directory = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where figures and pictures go.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Of everything that is drawn.")]


app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME …]",
            help="eos-asymmetry, last-pooling, saturation, frozen-critic, standing-still; all when left out.",
        ),
    ] = None,
    out: Directory = Path("demo"),
    seed: Seed = 0,
) -> None:
    """The field's failures on a small real model, beside our defaults. Minutes each on two cores."""
    run_failures(names or [], out, seed=seed)


@tells
def run_failures(names: Sequence[str], out: Path, *, seed: int) -> None:
    """Reproduce failures, print each as it is found, and write ``failures.json``.

    Args:
        names: Which ones; all for none.
        out: Directory to write to; made if need be.
        seed: Of data order, value heads and sampling.

    Raises:
        ConfigError: If there is no failure of a name, or the directory cannot be written to.
        GadError: If the model or the engine cannot be used.
    """
    _make(out)
    # vLLM's warnings are about its own set-up, and many.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from examples.failures.bench import Bench
    from examples.failures.catalogue import choose, reproduce
    from examples.failures.settings import default_settings

    console = Console()
    chosen = choose(names)
    bench = Bench(default_settings(seed=seed), tell=doing)
    findings: list[Finding] = []
    try:
        for finding in reproduce(chosen, bench):
            findings.append(finding)
            console.print(finding_table(finding))
            console.print(Text(verdict_line(finding)), soft_wrap=True)
            text = json.dumps({"seed": seed, "findings": [asdict(f) for f in findings]}, indent=1)
            try:
                write_text(out / "failures.json", text)
            except OSError as error:
                raise _unwritable(out, error) from error
    finally:
        bench.close()
    console.print(f"wrote {out / 'failures.json'}", soft_wrap=True)


def finding_table(finding: Finding) -> Table:
    """The figures of a failure, a line each."""
    table = Table(title=finding.failure, title_justify="left")
    table.add_column("figure")
    table.add_column(finding.setting, justify="right")
    table.add_column(f"our defaults: {finding.ours}", justify="right")
    for figure in finding.figures:
        table.add_row(
            figure.label, _number(figure.field), "" if figure.ours is None else _number(figure.ours)
        )
    return table


def verdict_line(finding: Finding) -> str:
    """The claim and whether it held."""
    return f"{'holds' if finding.holds else 'does not hold'}: {finding.claim} ({finding.seconds:.0f} s)"


def _number(value: float) -> str:
    """Four digits that mean something; an exact zero is seen to be one."""
    return "0" if value == 0.0 else f"{value:.4g}"


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(out, error) from error


def _unwritable(out: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot be written to: {error.strerror}", where=str(out), hint="give another --out")


if __name__ == "__main__":
    run(app, "python -m examples.failures")
