"""The command line: a module for each command, which imports what it needs only when that command runs.

``gad-ray --help`` therefore loads neither torch nor ray, nor anything else that takes time.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gad_ray import __version__
from gad_ray.cli import (
    bench,
    collect,
    compare,
    data_report,
    diagnose,
    doctor,
    evaluate,
    plan,
    recipes,
    report,
    score,
    serve,
    train,
)
from gad_ray.cli.arguments import say
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
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code.

    Args:
        arguments: What follows the program's name; the process's own when None.
    """
    run(app, "gad-ray", arguments)


def run(app: typer.Typer, name: str, arguments: Sequence[str] | None = None) -> None:
    """Run a command line, show its errors as errors, and leave the process with its exit code.

    Args:
        app: The command line.
        name: How it is called.
        arguments: What follows the program's name; the process's own when None.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal or pipe that is not UTF-8 gets escapes in place of what it cannot show.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(args=None if arguments is None else list(arguments), prog_name=name)
    except GadError as error:
        if os.environ.get(TRACEBACK_VARIABLE) == "1":
            raise
        _show(error)
        sys.exit(error.exit_code)
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE) == "1":
            raise
        from gad_ray.failure import EXIT_CODE, write_report

        report = write_report(error, sys.argv[1:] if arguments is None else arguments)
        _show(
            GadError(
                f"{name} met something that it does not handle: {type(error).__name__}: {error}",
                hint=f"all that is known of it is in {report}; please report it with that file",
            )
        )
        sys.exit(EXIT_CODE)
    except SystemExit as left:
        if left.code == 128 + signal.SIGINT:
            # One more Ctrl-C while the interpreter ends: at once, and without a traceback.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise


def _show(error: GadError) -> None:
    from rich.console import Console
    from rich.text import Text

    message = Text("error: ", style="bold red").append(str(error), style="default not bold")
    Console(stderr=True).print(message, soft_wrap=True)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"gad-ray {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    del version


# In the order in which they are listed.
app.command("train")(train.train)
app.command("fit")(train.fit)
app.command("plan")(plan.plan)
recipes_app.command("list")(recipes.recipes_list)
recipes_app.command("show")(recipes.recipes_show)
recipes_app.command("copy")(recipes.recipes_copy)
data_app.command("collect")(collect.data_collect)
data_app.command("report")(data_report.data_report)
bench_app.command("methods")(bench.bench_methods)
bench_app.command("serve")(bench.bench_serve)
bench_app.command("step")(bench.bench_step)
bench_app.command("learner")(bench.bench_learner)
bench_app.command("sync")(bench.bench_sync)
bench_app.command("exchange")(bench.bench_exchange)
bench_app.command("scale")(bench.bench_scale)
app.command("evaluate")(evaluate.evaluate)
app.command("replay")(evaluate.replay)
app.command("compare")(compare.compare)
app.command("score")(score.score)
app.command("serve")(serve.serve)
app.command("report")(report.report)
app.command("diagnose")(diagnose.diagnose)
app.command("doctor")(doctor.doctor)
