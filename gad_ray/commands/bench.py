"""``gad-ray bench``: measurements that anyone can repeat."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gad_ray.errors import ConfigError


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
    from rich.console import Console
    from rich.table import Table

    from gad_ray.bench.methods import METHODS, MethodsBench, table

    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise ConfigError(
            f"there is no method {unknown[0]!r}", where="--method", mend=f"take some of {', '.join(METHODS)}"
        )
    if num_seeds < 1:
        raise ConfigError(f"{num_seeds} seeds compare nothing", where="--seeds", mend="take 3 or more")
    bench = MethodsBench(
        recipe=recipe,
        out=out.resolve(),
        seeds=tuple(range(num_seeds)),
        overrides=tuple(overrides),
        methods=tuple(methods) or tuple(METHODS),
    )
    head, *rows = table(bench.run())
    shown = Table(*head, title=f"{recipe}: mean ± half of the 95 % interval over {num_seeds} seeds")
    for row in rows:
        shown.add_row(*row)
    console = Console(highlight=False)
    console.print(shown)
    console.print(f"figures: {bench.out / 'methods.json'}", soft_wrap=True)
