"""``gad-ray plan``: what a run will take, before it is started."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from gad_ray.cli.arguments import Json, Recipe, RunsDirectory, say
from gad_ray.errors import ConfigError

if TYPE_CHECKING:
    from gad_ray.planning.measured import Measured
    from gad_ray.planning.plan import Plan

_WITHIN = 0.2


def plan(
    recipe: Recipe,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings in place of the file's: prompts_per_step=256"),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="GPU", help="What the groups' GPUs are: a100, h100, h200, l4, l40s."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="RUN", help="A run whose measured steps calibrate the model."),
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Hold the plan against a run's measured steps; 1 if it is over 20 % off."
        ),
    ] = None,
    mfu: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=1.0, help="Share of the peak that passes reach, in place of what is known."
        ),
    ] = None,
    prompt_tokens: Annotated[
        float | None, typer.Option(min=1, help="Mean length of a prompt; else from --from or the data.")
    ] = None,
    response_tokens: Annotated[
        float | None, typer.Option(min=1, help="Mean length of a response; else as the teacher's.")
    ] = None,
    teacher_tokens: Annotated[
        float | None, typer.Option(min=1, help="Mean length of the teacher's texts.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Prompts to train on, for stages in epochs.")
    ] = None,
    runs: RunsDirectory = "runs",
    as_json: Json = False,
) -> None:
    """Say what a run will take: seconds of a step and their split, hours, GPU-hours, memory."""
    from gad_ray.config import load_config
    from gad_ray.observability.run_dir import find_run
    from gad_ray.planning.measured import read_measured
    from gad_ray.planning.plan import Wishes, make_plan

    wishes = Wishes(
        gpu=device,
        mfu=mfu,
        calibration=None if source is None else read_measured(find_run(source, runs)),
        prompt=prompt_tokens,
        response=response_tokens,
        teacher=teacher_tokens,
        rows=rows,
    )
    measured = None if check is None else read_measured(find_run(check, runs))
    if measured is not None and measured.stage != "adversarial":
        raise ConfigError(
            f"{measured.run} has played no step of the game", where="--check", hint="give a run that has"
        )
    made = make_plan(load_config(recipe, overrides or []), wishes)
    off = None if measured is None else made.stages[-1].step / measured.step - 1
    if as_json:
        content = made.to_json()
        if measured is not None:
            content["check"] = {
                "run": measured.run,
                "step_s": measured.step,
                "parts_s": dict(measured.parts),
                "off": off,
            }
        say(json.dumps(content, indent=1, ensure_ascii=False))
    else:
        _print(made, measured)
        if off is not None:
            say(f"a step of the game: {off:+.1%} against {check}, which may be {_WITHIN:.0%}")
    raise typer.Exit(int(off is not None and abs(off) > _WITHIN))


def _print(made: Plan, measured: Measured | None) -> None:
    from rich.console import Console
    from rich.table import Table

    columns = [f"{stage.name}, s" for stage in made.stages]
    table = Table("of a step", *columns, *(() if measured is None else (f"measured, {measured.run}, s",)))
    game = made.stages[-1]
    for part in game.parts:
        cells = [_seconds(stage.parts[part]) for stage in made.stages]
        table.add_row(part, *cells, *(() if measured is None else (_seconds(measured.parts[part]),)))
    whole = [_seconds(stage.step) for stage in made.stages]
    table.add_row("step", *whole, *(() if measured is None else (_seconds(measured.step),)), style="bold")
    shares = [f"{stage.parts['rollout'] / stage.step:.0%}" for stage in made.stages]
    table.add_row("share of rollout", *shares)
    table.add_row(
        "steps", *("?" if stage.num_steps is None else str(stage.num_steps) for stage in made.stages)
    )
    Console(highlight=False).print(table)
    if made.hours is None or made.unit_hours is None:
        say("hours: not known, as a stage's length is given in epochs; give --rows")
    else:
        say(f"{made.hours:.3g} hours, {made.unit_hours:.3g} {made.unit} ({made.units:g})")
    for actor in made.memory:
        say(f"  {actor}")
    say(made.advice)
    say("assumed:")
    for line in made.assumptions:
        say(f"  {line}")


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value else "–"
