"""``gad-ray bench``: measurements that anyone can repeat."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gad_ray.activity import doing, tells
from gad_ray.errors import ConfigError


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
    console.print(_shown(f"{recipe}: mean ± half of the 95 % interval over {num_seeds} seeds", head, rows))
    console.print(f"figures: {bench.out / 'methods.json'}", soft_wrap=True)


@tells
def bench_faults(names: Sequence[str], *, out: Path, base: Path | None, docs: Path | None) -> None:
    """Run the study of injected faults, and print its tables.

    Args:
        names: Cases to run; all when empty.
        out: Directory to write to; what is finished there is not repeated.
        base: Recipe of the healthy run in place of the study's own.
        docs: File to write as a page to read; none when absent.

    Raises:
        GadError: If a case is not known, or nothing can be run.
    """
    from gad_ray.bench.faults.catalogue import choose
    from gad_ray.bench.faults.page import study_page, summary
    from gad_ray.bench.faults.study import BASE, FaultStudy
    from gad_ray.bench.faults.tables import fault_table, healthy_table, rule_table
    from gad_ray.observability.files import write_text

    study = FaultStudy(cases=choose(names), out=out.resolve(), base=base or BASE, tell=doing)
    verdicts = study.run()
    console = Console(highlight=False)
    for title, (head, *rows) in (
        ("faults", fault_table(verdicts)),
        ("healthy runs", healthy_table(verdicts)),
        ("rules", rule_table(verdicts)),
    ):
        if rows:
            console.print(_shown(title, head, rows))
    for line in summary(verdicts):
        console.print(line, soft_wrap=True)
    if docs is not None:
        write_text(docs, study_page(verdicts, num_cores=len(os.sched_getaffinity(0))))
        console.print(f"page: {docs}", soft_wrap=True)
    console.print(f"figures: {study.out / 'faults.json'}", soft_wrap=True)


def list_faults() -> None:
    """Print all cases of the study of injected faults."""
    from gad_ray.bench.faults.catalogue import CASES

    shown = Table("case", "what is done", "named by")
    for case in CASES.values():
        names = [*case.named_by, *(["an error"] if case.refused_with else [])]
        names += ["the quarantine"] if case.quarantined else []
        shown.add_row(case.name, case.done, ", ".join(names) or "nothing: it is healthy")
    Console(highlight=False).print(shown)


@tells
def bench_serve(
    parts: Sequence[str], *, critic: Path | None, model: str, out: Path, docs: Path | None, **sizes: Any
) -> None:
    """Measure the endpoint under load, and print the tables.

    Args:
        parts: Parts to measure; all when empty.
        critic: An exported critic; one with a fresh head is made of ``model`` when None.
        model: Its backbone, as recipes name models.
        out: Directory to write to; parts that are finished there are not repeated.
        docs: File to write as a page to read; none when absent.
        sizes: The measurement's further settings; ``threads`` are all cores when 0, ``dtype`` is that of a critic
            which is made.

    Raises:
        GadError: If a part is not known, or a server does not come up or fails where it must not.
    """
    # Read when torch is loaded: threads that wait must not take the cores of the servers beside them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from gad_ray.bench.serve.critics import make_critic
    from gad_ray.bench.serve.page import load_page, notes
    from gad_ray.bench.serve.setting import Setting
    from gad_ray.bench.serve.study import PARTS, ServeStudy
    from gad_ray.bench.serve.tables import tables
    from gad_ray.observability.files import write_text

    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    dtype: str = sizes.pop("dtype")
    sizes["threads"] = sizes["threads"] or len(os.sched_getaffinity(0))
    made = out / f"critic-{dtype}"
    chosen = critic.resolve() if critic is not None else make_critic(made, model=model, dtype=dtype)
    setting = Setting(critic=chosen, out=out, tell=doing, **sizes)
    # As after Ctrl-C, what was started is ended.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    figures = ServeStudy(parts=list(parts) or list(PARTS), setting=setting).run()
    console = Console(highlight=False)
    for name, (title, (head, *rows)) in tables(figures).items():
        console.print(_shown(title, head, rows))
        for line in notes(name, figures[name]):
            console.print(line, soft_wrap=True)
    if docs is not None:
        write_text(docs, load_page(figures))
        console.print(f"page: {docs}", soft_wrap=True)
    console.print(f"figures: {out / 'serve.json'}", soft_wrap=True)


@tells
def bench_parity(critic: Path | None, *, model: str, out: Path, **settings: Any) -> int:
    """Score the same pairs in every way there is, and print how far the scores are apart.

    Args:
        critic: An exported critic; one with a fresh head is made of ``model`` when None.
        model: Its backbone, as recipes name models.
        out: Directory of the critic that is made.
        settings: Those of :class:`~gad_ray.bench.parity.study.ParityStudy`.

    Returns:
        The exit code: 0 where all scores are the same, 1 where they are not.

    Raises:
        GadError: If a way fails.
    """
    from gad_ray.bench.parity.study import ParityStudy
    from gad_ray.bench.serve.critics import make_critic

    chosen = critic or make_critic(out.resolve() / "critic", model=model)
    found = ParityStudy(critic=chosen.resolve(), tell=doing, **settings).run()
    head, *rows = found.table()
    console = Console(highlight=False)
    shortest, longest = found.tokens
    console.print(_shown(f"{found.dtype}, pairs of {shortest} to {longest} tokens", head, rows))
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


def _shown(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    shown = Table(*head, title=title)
    for row in rows:
        shown.add_row(*row)
    return shown
