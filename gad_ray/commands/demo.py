"""``gad-ray demo``: the toy, and the field's failures; tables on the terminal, JSON and pictures in a directory."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gad_ray.activity import activity, doing, tells
from gad_ray.demos.failures.finding import Finding
from gad_ray.errors import ConfigError
from gad_ray.observability.files import replacing, write_text


@tells
def run_toy(out: Path, *, seed: int) -> None:
    """Play the toy, print its figures, and write ``toy.json`` and ``toy.png``.

    Args:
        out: Directory to write to; made if need be.
        seed: Of samples and start.

    Raises:
        ConfigError: If the directory cannot be written to.
    """
    from gad_ray.demos.toy import MODES, ToyResult, play_toy
    from gad_ray.demos.toy_plot import draw_toy

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
    from gad_ray.demos.failures.bench import Bench
    from gad_ray.demos.failures.catalogue import choose, reproduce
    from gad_ray.demos.failures.settings import default_settings

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
