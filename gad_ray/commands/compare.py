"""``gad-ray compare``: policies of several runs, side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from gad_ray.activity import tells
from gad_ray.data.collect_settings import CollectSettings
from gad_ray.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from gad_ray.evaluation.compare import Comparison
    from gad_ray.evaluation.intervals import Interval
    from gad_ray.evaluation.policy_eval import Judgement


@tells
def compare(
    targets: Sequence[str],
    overrides: Sequence[str],
    *,
    output_dir: str,
    out: Path,
    prompts: Path | None,
    seed: int,
    judge: tuple[str, str] | None,
    judge_key: str,
    critic: str | None,
) -> None:
    """Compare, print the tables, and write ``comparison.json``.

    Args:
        targets: Names or paths of runs.
        overrides: ``key=value`` for the first run's settings.
        output_dir: Where runs are looked for by name.
        out: Directory for what is written.
        prompts: File of prompts with a teacher's answers, or None for the first run's held-out prompts.
        seed: Of the samples and of the fresh critics.
        judge: Endpoint and model of a judge, if one is to be asked.
        judge_key: Environment variable with its key.
        critic: Directory or URL of a critic that scores the answers too.

    Raises:
        GadError: If a run, its policy, the prompts, the judge or the critic cannot be used.
    """
    from rich.console import Console

    from gad_ray.evaluation.compare import compare_runs
    from gad_ray.observability.files import write_text

    if prompts is not None and not prompts.is_file():
        raise ConfigError(f"there is no file {prompts}", where="--prompts", hint="check the path")
    out.mkdir(parents=True, exist_ok=True)
    found = compare_runs(
        targets,
        output_dir=output_dir,
        out=out,
        prompts=None if prompts is None else prompts.resolve(),
        overrides=overrides,
        seed=seed,
        judge=None if judge is None else _asked(judge, judge_key, out),
        critic=critic,
    )
    write_text(out / "comparison.json", json.dumps(asdict(found), indent=1, ensure_ascii=False) + "\n")
    console = Console(highlight=False)
    _print_measures(found, console)
    _print_contests(found, console)
    console.print(f"figures and answers: {out / 'comparison.json'}", soft_wrap=True)


def _asked(judge: tuple[str, str], key: str, out: Path) -> CollectSettings:
    endpoint, model = judge
    return CollectSettings(
        endpoint=endpoint,
        model=model,
        input=out / "judge.jsonl",
        output=out / "judge.parquet",
        api_key_env=key,
        temperature=0.0,
        max_tokens=512,
        seed=0,
    )


def _print_measures(found: Comparison, console: Console) -> None:
    from rich.table import Table

    policies = found.policies
    num_prompts = next(iter(policies.values())).fresh.num_prompts
    table = Table("measure", *policies, title=f"{num_prompts} prompts, the same settings and seed for all")
    for label, cells in _rows(list(policies.values())):
        table.add_row(label, *cells)
    if found.verdicts:
        verdicts = [found.verdicts[name] for name in policies]
        table.add_row("given critic's d_acc", *[_interval(one.d_acc) for one in verdicts])
        table.add_row("given critic's score difference", *[_interval(one.score_diff) for one in verdicts])
    console.print(table)


def _rows(judged: Sequence[Judgement]) -> list[tuple[str, list[str]]]:
    return [
        ("fresh critic's AUC (0.5: as the teacher)", [_interval(one.fresh.auc) for one in judged]),
        ("fresh critic's d_acc", [_interval(one.fresh.d_acc) for one in judged]),
        ("teacher's text, nats/token", [f"{one.nll:.3f}" for one in judged]),
        ("length / teacher's", [f"{one.length_ratio:.3f}" for one in judged]),
        ("cut at the limit", [f"{one.cut:.3f}" for one in judged]),
        ("distinct-1", [f"{one.distinct_1:.3f}" for one in judged]),
        ("distinct-2", [f"{one.distinct_2:.3f}" for one in judged]),
    ]


def _interval(interval: Interval) -> str:
    return f"{interval.value:.3f} ({interval.low:.3f}-{interval.high:.3f})"


def _print_contests(found: Comparison, console: Console) -> None:
    from rich.table import Table

    if not found.contests:
        return
    table = Table("policy", "against", "win rate", "shown first", "shown second", "prompts", "unreadable")
    for contest in found.contests:
        table.add_row(
            contest.first,
            contest.second,
            _interval(contest.win_rate),
            f"{contest.win_rate_shown_first:.3f}",
            f"{contest.win_rate_shown_second:.3f}",
            str(contest.num_prompts),
            str(contest.num_unreadable),
        )
    console.print(table)
