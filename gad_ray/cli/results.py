"""What is asked of runs and critics that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gad_ray.cli.arguments import EndpointKey, Json, RunOrCritic, RunsDirectory


def evaluate(
    target: RunOrCritic,
    step: Annotated[
        int | None, typer.Option(help="Repeat the evaluation of this step; left out: of the newest critic.")
    ] = None,
    runs: RunsDirectory = "runs",
    as_json: Json = False,
) -> None:
    """Score a run's fixed evaluation set again: the run's own numbers, at any time."""
    from gad_ray.commands.evaluate import report_evaluation

    report_evaluation(target, step=step, output_dir=runs, as_json=as_json)


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
    from gad_ray.commands.evaluate import report_replay

    same = report_replay(
        target,
        step=step,
        via=via,
        key_variable=key_env,
        tolerance=tolerance,
        output_dir=runs,
        as_json=as_json,
    )
    raise typer.Exit(0 if same else 1)


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
    from gad_ray.commands.compare import compare as run

    if (judge is None) != (judge_model is None):
        raise typer.BadParameter("--judge and --judge-model go together")
    run(
        targets,
        settings or [],
        output_dir=runs,
        out=out,
        prompts=prompts,
        seed=seed,
        judge=None if judge is None or judge_model is None else (judge, judge_model),
        judge_key=api_key_env,
        critic=critic,
    )


def score(
    critic: Annotated[
        str | None, typer.Option(metavar="DIR|URL", help="An exported critic, or one that is served.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(metavar="URL", help="The same as --critic URL.")] = None,
    source: Annotated[
        str,
        typer.Option("--in", metavar="FILE|-", help="JSONL with content (or prompt, messages) and response."),
    ] = "-",
    out: Annotated[str, typer.Option(metavar="FILE|-", help="JSONL: the rows, each with its score.")] = "-",
    key_env: EndpointKey = "GAD_RAY_SERVE_KEY",
) -> None:
    """Score responses with an exported critic, or a served one. Scores compare only within one prompt."""
    from gad_ray.commands.score import score_file

    chosen = critic or endpoint
    if chosen is None or (critic is not None and endpoint is not None):
        raise typer.BadParameter("give either --critic or --endpoint")
    score_file(chosen, source, out, key_variable=key_env)


def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN …", help="Names or paths; several are compared.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="RUN/report.html when left out, or comparison.html here."),
    ] = None,
) -> None:
    """Write what a run has come to, or how several compare, as one HTML file that needs no network."""
    from gad_ray.commands.report import write

    write(runs, out)


def diagnose(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN|FILE|DIR",
            help="A run, a metrics.jsonl, a TensorBoard directory, or verl's console log.",
        ),
    ] = None,
    lang: Annotated[str, typer.Option(metavar="en|zh", help="Language of the answer.")] = "en",
    as_json: Annotated[bool, typer.Option("--json", help="The rules that fired, machine-readable.")] = False,
    facts: Annotated[
        Path | None,
        typer.Option(metavar="JSON", help="What a foreign log does not tell; see docs/health.md."),
    ] = None,
    stage: Annotated[
        str | None, typer.Option(metavar="warmup|adversarial", help="Stage of a log that does not tell it.")
    ] = None,
    fail_on: Annotated[
        str,
        typer.Option(
            metavar="never|warning|critical", help="Exit with 1 if such a rule holds at the end, as for a CI."
        ),
    ] = "never",
    rules: Annotated[bool, typer.Option("--rules", help="Print the table of all rules and leave.")] = False,
    critic: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Judge this exported critic by itself, on --data.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Rows with a teacher's answer, and a student's if there is one; score records.",
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of --data that are looked at.")] = 200,
) -> None:
    """Say what is wrong with a run or with a critic, what it means, and which settings mend it."""
    from gad_ray.commands.diagnose import run_critic_diagnosis, run_diagnosis

    if critic is not None or data is not None:
        others = {"RUN": source, "--facts": facts, "--stage": stage, "--rules": rules}
        raise typer.Exit(
            run_critic_diagnosis(
                critic, data, rows=rows, lang=lang, as_json=as_json, fail_on=fail_on, others=others
            )
        )
    raise typer.Exit(
        run_diagnosis(
            source, lang=lang, as_json=as_json, facts=facts, stage=stage, fail_on=fail_on, show_rules=rules
        )
    )
