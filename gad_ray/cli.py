"""The command line: it parses, and imports what a command needs only when that command runs.

``gad-ray --help`` therefore loads neither torch nor ray, nor anything else that takes time.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gad_ray import __version__
from gad_ray.errors import GadError

if TYPE_CHECKING:
    from collections.abc import Sequence

TRACEBACK_VARIABLE = "GAD_RAY_TRACEBACK"
"""Set to 1, it lets an error of our own show where in the code it was raised."""

# Plain help texts: rich's take a third of a second to import. Tracebacks are Python's own.
app = typer.Typer(
    name="gad-ray",
    help="Generative adversarial distillation of a text-only teacher, on Ray.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)
recipes_app = typer.Typer(help="Show and copy the recipes that come with GAD-Ray.", no_args_is_help=True)
data_app = typer.Typer(help="Make training data, and say what is wrong with them.", no_args_is_help=True)
app.add_typer(recipes_app, name="recipes")
bench_app = typer.Typer(help="Measurements that anyone can repeat.", no_args_is_help=True)
demo_app = typer.Typer(help="Show what the game does and how it fails, without Ray.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")
app.add_typer(demo_app, name="demo")

DemoDirectory = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where figures and pictures go.")]
DemoSeed = Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Of everything that is drawn.")]
RunOrCritic = Annotated[
    str,
    typer.Argument(
        metavar="RUN|CHECKPOINT", help="A run's name or path, or one of its checkpoints or exported critics."
    ),
]
RunsDirectory = Annotated[
    str, typer.Option("--runs", metavar="DIR", help="Where runs are looked for by name.")
]
EndpointKey = Annotated[
    str, typer.Option("--key-env", metavar="VARIABLE", help="Environment variable with the endpoint's key.")
]
RecipeName = Annotated[
    str, typer.Argument(metavar="NAME", help="The recipe's name; see gad-ray recipes list.")
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code.

    Args:
        arguments: What follows the program's name; the process's own when None.
    """
    try:
        app(args=None if arguments is None else list(arguments), prog_name="gad-ray")
    except GadError as error:
        if os.environ.get(TRACEBACK_VARIABLE) == "1":
            raise
        _show(error)
        sys.exit(error.exit_code)


def _show(error: GadError) -> None:
    from rich.console import Console
    from rich.text import Text

    message = Text("error: ", style="bold red").append(str(error), style="default not bold")
    Console(stderr=True).print(message, soft_wrap=True)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gad-ray {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    del version


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE-or-PATH", help="A recipe's name or a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings in place of the file's: rollout.temperature=0.6"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all that can be known without training, and say it.")
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="auto|RUN", help="Go on from the newest checkpoint: of this run, or of a run's directory."
        ),
    ] = None,
) -> None:
    """Distil: warm the critic up, then play the adversarial game."""
    from gad_ray.commands.train import run_training

    raise typer.Exit(run_training(recipe, overrides or [], dry_run=dry_run, resume=resume))


@app.command()
def fit(
    method: Annotated[str, typer.Argument(metavar="seqkd|soda", help="How to fit.")],
    recipe: Annotated[str, typer.Argument(metavar="RECIPE-or-PATH", help="A recipe's name or a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings in place of the file's: fit.seqkd.epochs=2"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all that can be known without training, and say it.")
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="auto|RUN", help="Go on from the newest checkpoint: of this fit, or of a fit's directory."
        ),
    ] = None,
) -> None:
    """Fit the policy to fixed text, without a game: the baselines, and what a game may start from.

    seqkd: cross-entropy on the teacher's text. soda: DPO, the teacher's text preferred to what the base policy
    itself answers.
    """
    from gad_ray.commands.fit import run_fit

    raise typer.Exit(run_fit(method, recipe, overrides or [], dry_run=dry_run, resume=resume))


@recipes_app.command("list")
def recipes_list() -> None:
    """List the recipes, a line each."""
    from gad_ray.commands.recipes import list_recipes

    list_recipes()


@recipes_app.command("show")
def recipes_show(name: RecipeName) -> None:
    """Print a recipe."""
    from gad_ray.commands.recipes import show_recipe

    show_recipe(name)


@recipes_app.command("copy")
def recipes_copy(
    name: RecipeName,
    to: Annotated[
        Path | None, typer.Argument(help="The file to write; NAME.yaml here when left out.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Copy a recipe to a file of your own, to change it there."""
    from gad_ray.commands.recipes import copy_recipe

    copy_recipe(name, to, force=force)


@data_app.command("collect")
def data_collect(
    endpoint: Annotated[
        str, typer.Option(metavar="URL", help="An OpenAI-compatible endpoint, e.g. http://host:8000/v1.")
    ],
    model: Annotated[str, typer.Option(metavar="NAME", help="The teacher, as the endpoint calls it.")],
    source: Annotated[
        Path, typer.Option("--in", metavar="JSONL", help="Prompts: content, prompt or messages.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="PARQUET", help="Where the pairs go; journal and rejects lie beside.")
    ],
    teacher: Annotated[
        str, typer.Option(help="Name recorded as the teacher; the model's when left out.")
    ] = "",
    api_key_env: Annotated[
        str, typer.Option(metavar="VARIABLE", help="Environment variable that holds the key.")
    ] = "OPENAI_API_KEY",
    system_prompt: Annotated[str | None, typer.Option(help="Put before every prompt.")] = None,
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Nucleus mass.")] = 1.0,
    max_tokens: Annotated[
        int, typer.Option(help="Longest answer; one that reaches it is rejected as cut.")
    ] = 512,
    seed: Annotated[int, typer.Option(help="Sampling seed to send along; -1 sends none.")] = 0,
    concurrency: Annotated[int, typer.Option(help="Requests under way at once.")] = 8,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Time limit of one request.")] = 120.0,
    max_attempts: Annotated[
        int, typer.Option(help="Attempts for one prompt before it counts as failed.")
    ] = 6,
) -> None:
    """Ask a teacher for its answers. Called again after a break, it asks only for what is missing."""
    from gad_ray.commands.collect import run_collection
    from gad_ray.data.collect import CollectSettings

    run_collection(
        CollectSettings(
            endpoint=endpoint,
            model=model,
            input=source,
            output=out,
            teacher=teacher,
            api_key_env=api_key_env,
            system_prompt=system_prompt,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            seed=None if seed < 0 else seed,
            concurrency=concurrency,
            timeout_s=timeout,
            max_attempts=max_attempts,
        )
    )


@data_app.command("report")
def data_report(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILES", help="Parquet or JSONL, globs, package:NAME, or a run's records."),
    ],
    policy: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The student: counts tokens, and answers where rows do not."),
    ] = None,
    critic: Annotated[
        Path | None, typer.Option(metavar="DIR", help="An exported critic, to score both sides.")
    ] = None,
    heldout: Annotated[
        list[str] | None, typer.Option(metavar="FILES", help="Held-out rows to look for; may be repeated.")
    ] = None,
    sample: Annotated[
        int, typer.Option(min=1, max=100_000, help="Prompts to be answered by the policy or scored.")
    ] = 200,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer of the policy.")] = 512,
    temperature: Annotated[float, typer.Option(min=0.0, max=10.0, help="Sampling; 0 is greedy.")] = 0.8,
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0, help="Nucleus mass.")] = 1.0,
    engine: Annotated[
        str, typer.Option(metavar="auto|vllm|transformers", help="What the policy answers with.")
    ] = "auto",
    chat_template: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="The policy's, where its own is not meant.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of draws and intervals.")] = 0,
    out: Annotated[Path | None, typer.Option(metavar="HTML", help="Write the report as one page.")] = None,
    as_json: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Write all figures and findings.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if a finding is critical.")] = False,
) -> None:
    """Say what is wrong with data: rows, text, duplicates, and what tells teacher from student without reading."""
    from gad_ray.commands.data_report import report_on_data
    from gad_ray.quality.settings import PolicySettings, ReportSettings

    student = policy and PolicySettings(
        model=policy,
        chat_template=chat_template,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        engine=engine,
    )
    settings = ReportSettings(
        files=tuple(files),
        heldout=tuple(heldout or ()),
        policy=student or None,
        critic=critic,
        num_drawn=sample,
        seed=seed,
    )
    raise typer.Exit(report_on_data(settings, out=out, as_json=as_json, strict=strict))


@bench_app.command("methods")
def bench_methods(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE-or-PATH", help="Gives model, data and sizes to every method.")
    ] = "quickstart",
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings for every method.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Only this method; may be given several times.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Students of each method.")] = 3,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where runs and figures go.")] = Path(
        "runs/bench-methods"
    ),
) -> None:
    """Base, SeqKD, SODA and the game at about equal time, judged on held-out prompts by fresh critics."""
    from gad_ray.commands.bench import bench_methods as run

    run(recipe, overrides or [], methods=method or [], num_seeds=seeds, out=out)


@app.command()
def evaluate(
    target: RunOrCritic,
    step: Annotated[
        int | None, typer.Option(help="Repeat the evaluation of this step; left out: of the newest critic.")
    ] = None,
    runs: RunsDirectory = "runs",
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Score a run's fixed evaluation set again: the run's own numbers, at any time."""
    from gad_ray.commands.evaluate import report_evaluation

    report_evaluation(target, step=step, output_dir=runs, as_json=as_json)


@app.command()
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
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
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


@app.command()
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
    )


@app.command()
def score(
    critic: Annotated[Path | None, typer.Option(metavar="DIR", help="An exported critic.")] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="A served critic in place of one here.")
    ] = None,
    source: Annotated[
        str,
        typer.Option("--in", metavar="FILE|-", help="JSONL with content (or prompt, messages) and response."),
    ] = "-",
    out: Annotated[str, typer.Option(metavar="FILE|-", help="JSONL: the rows, each with its score.")] = "-",
    key_env: EndpointKey = "GAD_RAY_SERVE_KEY",
) -> None:
    """Score responses with an exported critic, or a served one. Scores compare only within one prompt."""
    from gad_ray.commands.score import score_file

    if (critic is None) == (endpoint is None):
        raise typer.BadParameter("give either --critic or --endpoint")
    score_file(critic, source, out, endpoint=endpoint, key_variable=key_env)


@app.command("serve")
def serve_critic(
    critic: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A checkpoint or an exported critic.")
    ] = None,
    follow: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="A run's name or path: always its newest good critic."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than loopback need a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    name: Annotated[str, typer.Option(help="What clients call the model.")] = "critic",
    key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keys, one a line; or set GAD_RAY_SERVE_KEYS."),
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, help="Processes that share the requests.")] = 1,
    gpus: Annotated[float, typer.Option(min=0.0, help="GPUs of one replica.")] = 0.0,
    threads: Annotated[
        int, typer.Option(min=0, help="Threads of one replica; 0: its share of the cores.")
    ] = 0,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens of one forward pass.")] = 4096,
    cache_tokens: Annotated[
        int, typer.Option(min=0, help="Scored tokens whose scores are kept for equal text; 0: none.")
    ] = 0,
) -> None:
    """Serve a critic over HTTP until a signal. Scores are those of training; see docs/serving.md."""
    from gad_ray.commands.serve import serve_critic as run

    settings = {
        "name": name,
        "key_file": None if key_file is None else str(key_file.resolve()),
        "num_replicas": replicas,
        "gpus_per_replica": gpus,
        "threads": threads,
        "batching": {"max_batch_tokens": batch_tokens, "cache_tokens": cache_tokens},
    }
    if (critic is None) == (follow is None):
        raise typer.BadParameter("give either --critic or --follow")
    raise typer.Exit(run(critic, follow, host=host, port=port, settings=settings))


@app.command()
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


@demo_app.command("toy")
def demo_toy(out: DemoDirectory = Path("demo"), seed: DemoSeed = 0) -> None:
    """A teacher with two modes and a student with one: SeqKD covers, the game seeks. Seconds on a CPU."""
    from gad_ray.commands.demo import run_toy

    run_toy(out, seed=seed)


@demo_app.command("failures")
def demo_failures(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME …]",
            help="eos-asymmetry, last-pooling, saturation, frozen-critic, standing-still; all when left out.",
        ),
    ] = None,
    out: DemoDirectory = Path("demo"),
    seed: DemoSeed = 0,
) -> None:
    """The field's failures on a small real model, beside our defaults. Minutes each on two cores."""
    from gad_ray.commands.demo import run_failures

    run_failures(names or [], out, seed=seed)


@app.command()
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
) -> None:
    """Say what is wrong with a run, ours or another's, what it means, and which settings mend it."""
    from gad_ray.commands.diagnose import run_diagnosis

    raise typer.Exit(
        run_diagnosis(
            source, lang=lang, as_json=as_json, facts=facts, stage=stage, fail_on=fail_on, show_rules=rules
        )
    )


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also import the big packages and use them once.")
    ] = False,
) -> None:
    """Say what this machine has, what it lacks, and what to do about it."""
    from gad_ray.commands.doctor import report

    raise typer.Exit(report(as_json=as_json, deep=deep))
