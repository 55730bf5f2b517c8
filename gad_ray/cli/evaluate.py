"""``gad-ray evaluate`` and ``gad-ray replay``: a run's numbers, obtained once more."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gad_ray.activity import tells
from gad_ray.cli.arguments import EndpointKey, Json, RunOrCritic, RunsDirectory, say

if TYPE_CHECKING:
    from gad_ray.critics import Critic
    from gad_ray.evaluation.intervals import Interval
    from gad_ray.evaluation.reevaluate import Evaluation
    from gad_ray.evaluation.replay import Replay

_FIGURES = (("d_acc", "d_acc"), ("score_diff", "score_diff"), ("auc", "AUC"))
_SHOWN_CHARACTERS = 160


@tells
def evaluate(
    target: RunOrCritic,
    step: Annotated[
        int | None, typer.Option(help="Repeat the evaluation of this step; left out: of the newest critic.")
    ] = None,
    runs: RunsDirectory = "runs",
    as_json: Json = False,
) -> None:
    """Score a run's fixed evaluation set again: the run's own numbers, at any time."""
    from gad_ray.evaluation.reevaluate import evaluate_again

    found = evaluate_again(target, output_dir=runs, step=step)
    if as_json:
        say(json.dumps(_evaluation_json(found), indent=1))
    else:
        _print_evaluation(found)


@tells
def replay(
    target: RunOrCritic,
    step: Annotated[
        int | None, typer.Option(help="The records' step; left out: the latest whose critic is kept.")
    ] = None,
    via: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|URL", help="Score with this checkpoint, exported critic or endpoint instead."
        ),
    ] = None,
    key_env: EndpointKey = "GAD_RAY_SERVE_KEY",
    tolerance: Annotated[
        float | None,
        typer.Option(help="Largest |Δ| that counts as the same; by the critic's precision if left out."),
    ] = None,
    runs: RunsDirectory = "runs",
    as_json: Json = False,
) -> None:
    """Give recorded scores again, and say how far they differ and why. Exits with 1 if they do."""
    from gad_ray.critics.store import is_url, open_critic
    from gad_ray.evaluation.replay import replay as run

    critic: Path | Critic | None = None if via is None else Path(via)
    if via is not None and is_url(via):
        critic = open_critic(via, key_env=key_env)
    found = run(target, output_dir=runs, step=step, via=critic, tolerance=tolerance)
    if as_json:
        say(json.dumps(_replay_json(found), indent=1, ensure_ascii=False))
    else:
        _print_replay(found)
    raise typer.Exit(0 if found.same_scores else 1)


def _evaluation_json(found: Evaluation) -> dict[str, object]:
    return {
        "critic": str(found.critic.path),
        "fingerprint": {**asdict(found.fingerprint), "digest": found.fingerprint.digest},
        "step": found.step,
        "num_prompts": found.num_prompts,
        "sampling": asdict(found.sampling),
        "metrics": found.metrics,
        "logged": found.logged,
    }


def _print_evaluation(found: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table

    when = "no evaluation of the run" if found.step is None else f"step {found.step}"
    sets = [("fixed answers", "eval/", found.fixed)]
    if found.current is not None:
        sets.append(("policy's answers of that step", "eval/current_", found.current))
    table = Table(
        "measure", "value", "95 % interval", "logged", title=f"{found.num_prompts} held-out prompts, {when}"
    )
    for label, prefix, verdict in sets:
        for name, shown in _FIGURES:
            interval: Interval = getattr(verdict, name)
            logged = found.logged.get(f"{prefix}{name}")
            table.add_row(
                f"{shown}, {label}",
                f"{interval.value:.4f}",
                f"{interval.low:.4f} to {interval.high:.4f}",
                "" if logged is None else f"{logged:.4f}",
            )
    console = Console(highlight=False)
    console.print(table)
    drawn = found.sampling
    console.print(
        f"answers drawn at temperature {drawn.temperature}, top_p {drawn.top_p}, repetition_penalty "
        f"{drawn.repetition_penalty}, at most {drawn.max_tokens} tokens, seed {drawn.seed}"
    )
    console.print(f"critic {found.critic.path}, fingerprint {found.fingerprint.digest[:16]}", soft_wrap=True)


def _replay_json(found: Replay) -> dict[str, object]:
    row, side, recorded, again = found.worst
    return {
        "records": str(found.records),
        "step": found.step,
        "critic": found.critic,
        "num_rows": found.num_rows,
        "max_difference": found.max_difference,
        "mean_difference": found.mean_difference,
        "tolerance": found.tolerance,
        "same_scores": found.same_scores,
        "recorded": None if found.recorded is None else asdict(found.recorded),
        "found": asdict(found.found),
        "differing": list(found.differing),
        "worst": {"example_id": row.example_id, "side": side, "recorded": recorded, "again": again},
    }


def _print_replay(found: Replay) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(f"{found.num_rows} pairs of {found.records}"), soft_wrap=True)
    console.print(Text(f"scored again by {found.critic}"), soft_wrap=True)
    verdict = "the recorded scores" if found.same_scores else "other scores"
    console.print(
        f"{verdict}: |Δ| at most {found.max_difference:.2g}, {found.mean_difference:.2g} on average "
        f"(allowed: {found.tolerance:g})"
    )
    if found.recorded is None:
        console.print("the records do not say which critic gave them")
    elif found.differing:
        console.print(f"not the critic that gave them: it differs in {', '.join(found.differing)}")
    else:
        console.print(f"the critic that gave them: fingerprint {found.found.digest[:16]}")
    if not found.same_scores:
        row, side, recorded, again = found.worst
        text = row.teacher_response if side == "teacher" else row.student_response
        console.print(
            Text(
                f"furthest apart: the {side}'s response to {row.example_id}, {recorded:.4f} then and {again:.4f} now"
            )
        )
        console.print(Text(f"  {text[:_SHOWN_CHARACTERS]!r}"))
