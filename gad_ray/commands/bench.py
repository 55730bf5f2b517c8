"""``gad-ray bench``: measurements that anyone can repeat."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from gad_ray.activity import doing, tells
from gad_ray.errors import ConfigError

if TYPE_CHECKING:
    from gad_ray.bench.serve.study import Part


@tells
def bench_methods(
    recipe: str, overrides: Sequence[str], *, methods: Sequence[str], num_seeds: int, out: Path
) -> None:
    """Compare methods on one recipe, and print the table.

    Args:
        recipe: Name of a packaged recipe or path of a YAML file.
        overrides: ``key=value`` for every method.
        methods: Those to compare; all when empty.
        num_seeds: Students of each.
        out: Directory to write to; what is finished there is not repeated.

    Raises:
        GadError: If a method is not known, or a student cannot be trained or judged.
    """
    from gad_ray.bench.methods import METHODS, MethodsBench, table

    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise ConfigError(
            f"there is no method {unknown[0]!r}", where="--method", hint=f"take some of {', '.join(METHODS)}"
        )
    if num_seeds < 1:
        raise ConfigError(f"{num_seeds} seeds compare nothing", where="--seeds", hint="take 3 or more")
    bench = MethodsBench(
        recipe=recipe,
        out=out.resolve(),
        seeds=tuple(range(num_seeds)),
        overrides=tuple(overrides),
        methods=tuple(methods) or tuple(METHODS),
    )
    head, *rows = table(bench.run())
    console = Console(highlight=False)
    console.print(shown(f"{recipe}: mean ± half of the 95 % interval over {num_seeds} seeds", head, rows))
    console.print(f"figures: {bench.out / 'methods.json'}", soft_wrap=True)


@tells
def bench_serve(parts: Sequence[str], *, critic: Path | None, model: str, out: Path, **sizes: Any) -> None:
    """Measure the endpoint under load, and print the tables.

    Args:
        parts: Parts to measure; all when empty.
        critic: An exported critic; one with a fresh head is made of ``model`` when None.
        model: Its backbone, as recipes name models.
        out: Directory to write to; parts that are finished there are not repeated.
        sizes: As :func:`measure_serving` takes them.

    Raises:
        GadError: If a part is not known, or a server does not come up or fails where it must not.
    """
    _passive()
    from gad_ray.bench.serve.latency import LATENCY
    from gad_ray.bench.serve.throughput import THROUGHPUT

    known = {"throughput": THROUGHPUT, "latency": LATENCY}
    measure_serving(known, parts, critic=critic, model=model, out=out, **sizes)


def measure_serving(
    known: Mapping[str, Part],
    parts: Sequence[str],
    *,
    critic: Path | None,
    model: str,
    out: Path,
    dtype: str,
    threads: int,
    **sizes: Any,
) -> dict[str, Any]:
    """Measure parts of the endpoint under load, print their tables, and return their figures.

    Args:
        known: All parts that there are, by name.
        parts: Names of those to measure; all when empty.
        critic: An exported critic; one with a fresh head is made of ``model`` when None.
        model: Its backbone, as recipes name models.
        out: Directory to write to; parts that are finished there are not repeated.
        dtype: Precision of a critic that is made.
        threads: Of every model that is measured; all cores when 0.
        sizes: The measurement's further settings.

    Raises:
        GadError: If a part is not known, or a server does not come up or fails where it must not.
    """
    _passive()
    from gad_ray.bench.serve.critics import make_critic
    from gad_ray.bench.serve.setting import Setting
    from gad_ray.bench.serve.study import ServeStudy, notes_of

    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    made = out / f"critic-{dtype}"
    chosen = critic.resolve() if critic is not None else make_critic(made, model=model, dtype=dtype)
    threads = threads or len(os.sched_getaffinity(0))
    setting = Setting(critic=chosen, out=out, tell=doing, threads=threads, **sizes)
    # As after Ctrl-C, what was started is ended.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    figures = ServeStudy(known=known, parts=parts, setting=setting).run()
    console = Console(highlight=False)
    for name, kept in figures.items():
        part = known[name]
        head, *rows = part.table(kept["figures"])
        console.print(shown(part.title, head, rows))
        for line in notes_of(part, kept):
            console.print(line, soft_wrap=True)
    console.print(f"figures: {out / 'serve.json'}", soft_wrap=True)
    return figures


def _passive() -> None:
    """Read when torch is loaded: threads that wait must not take the cores of the servers beside them."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def shown(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Rows of text as a table for the terminal."""
    table = Table(*head, title=title)
    for row in rows:
        table.add_row(*row)
    return table
