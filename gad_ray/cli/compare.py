"""``gad-ray compare``: policies of several runs, side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gad_ray.activity import tells
from gad_ray.cli.arguments import RunsDirectory
from gad_ray.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from gad_ray.data.collect_settings import CollectSettings
    from gad_ray.evaluation.compare import Comparison
    from gad_ray.evaluation.intervals import Interval
    from gad_ray.evaluation.policy_eval import Judgement


@tells
def compare(
    targets: Annotated[list[str], typer.Argument(metavar="RUN…", help="Names or paths of finished runs.")],
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Prompts with a teacher's answers; the first run's held-out ones if left out.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a setting of the first run: rollout.temperature=0.6"
        ),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(metavar="URL", help="An OpenAI-compatible endpoint for pairwise verdicts.")
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The judge, as the endpoint calls it.")
    ] = None,
    api_key_env: Annotated[
        str, typer.Option(metavar="VARIABLE", help="Environment variable that holds the judge's key.")
    ] = "OPENAI_API_KEY",
    critic: Annotated[
        str | None,
        typer.Option(metavar="DIR|URL", help="A critic that scores the answers too: exported or served."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples and of the fresh critics.")] = 0,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where answers and figures go.")] = Path(
        "runs/comparison"
    ),
    runs: RunsDirectory = "runs",
) -> None:
    """Have several runs' policies answer the same prompts with the same settings, and table them.

    Data, sampling and the critic that is trained anew for each policy are the first run's.
    """
    if (judge is None) != (judge_model is None):
        raise typer.BadParameter("--judge and --judge-model go together")
    from rich.console import Console

    from gad_ray.evaluation.compare import compare_runs
    from gad_ray.observability.files import write_text

    if prompts is not None and not prompts.is_file():
        raise ConfigError(f"there is no file {prompts}", where="--prompts", hint="check the path")
    out.mkdir(parents=True, exist_ok=True)
    found = compare_runs(
        targets,
        output_dir=runs,
        out=out,
        prompts=None if prompts is None else prompts.resolve(),
        overrides=settings or [],
        seed=seed,
        judge=None if judge is None or judge_model is None else _asked(judge, judge_model, api_key_env, out),
        critic=critic,
    )
    write_text(out / "comparison.json", json.dumps(asdict(found), indent=1, ensure_ascii=False) + "\n")
    console = Console(highlight=False)
    _print_measures(found, console)
    _print_contests(found, console)
    console.print(f"figures and answers: {out / 'comparison.json'}", soft_wrap=True)


def _asked(endpoint: str, model: str, key: str, out: Path) -> CollectSettings:
    from gad_ray.data.collect_settings import CollectSettings

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
