"""A run's settings as this machine decides them: once, in the driver, before anything is loaded.

A resumed run keeps what it began with, but for threads, which are those of the machine that it goes on with. Where actors
are placed on machines of another kind than the driver's, set what matters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

from gad_ray import machine
from gad_ray.auto.choice import Came, Choice, Resolved
from gad_ray.auto.engine import (
    choose_batch,
    choose_engine,
    engine_key,
    engine_rates,
    keep_engine_rate,
    memory_for_cache,
    vllm_suits,
)
from gad_ray.auto.passes import MOST, by_memory, by_rates, set_tokens
from gad_ray.auto.precision import choose_precision, speed_of
from gad_ray.auto.rates import find_pass_rates
from gad_ray.auto.shapes import facts_of, is_tiny, shape_of
from gad_ray.auto.threads import share_of_cores, threads_choice
from gad_ray.config import PrecisionChoice, RunConfig
from gad_ray.config.base import SizeChoice
from gad_ray.config.rollout import ENGINES
from gad_ray.memory_estimate import cache_bytes, pass_memory
from gad_ray.models.facts import ModelFacts

Role = Literal["policy", "critic"]
_ROLES: tuple[Role, ...] = ("policy", "critic")
T = TypeVar("T")


def resolve(config: RunConfig, *, earlier: RunConfig | None = None) -> Resolved:
    """Settle everything that is ``auto``.

    Nothing is measured of what does not hang on it. A model that cannot be described is taken for one of typical widths:
    whoever loads it tells of the fault.

    Args:
        config: A run.
        earlier: The same run as it began, when it is resumed: what was ``auto`` stays what it came to then.
    """
    choices = [*_threads(config)]
    for role in _ROLES:
        choices.append(choice := _compute(config, role, earlier))
        model = getattr(config, role).model.model_copy(update={"compute": choice.taken})
        config = _with(config, role, model=model)
    # In this order: memory and earlier rates hang on precision and engine.
    steps: tuple[tuple[str, str, Callable[[RunConfig, RunConfig | None], Choice]], ...] = (
        ("rollout", "precision", _rollout_precision),
        ("rollout", "engine", _engine),
        ("rollout", "batch_sequences", _batch),
        ("policy", "micro_batch_tokens", lambda config, earlier: _tokens(config, "policy", earlier)),
        ("critic", "micro_batch_tokens", lambda config, earlier: _tokens(config, "critic", earlier)),
    )
    for part, name, choose in steps:
        choices.append(choice := choose(config, earlier))
        config = _with(config, part, **{name: choice.taken})
    return Resolved(config, tuple(choices))


def remember_engine(config: RunConfig, tokens_per_s: float) -> None:
    """Keep what a finished run has measured of its engine, for later choices on this machine.

    Args:
        config: The run, settled.
        tokens_per_s: Response tokens a second of all workers.
    """
    rollout = config.rollout
    if rollout.engine in ENGINES and tokens_per_s > 0 and not is_tiny(shape_of(config.policy.model.model)):
        keep_engine_rate(_engine_key(config), rollout.engine, tokens_per_s)


def _with(config: RunConfig, name: str, **values: Any) -> RunConfig:
    return config.model_copy(update={name: getattr(config, name).model_copy(update=values)})


def _asked(config: RunConfig, earlier: RunConfig | None, of: Callable[[RunConfig], T]) -> tuple[T, Came]:
    """What is asked for: as it is set, or what ``auto`` came to when the run began."""
    asked = of(config)
    is_open = asked == "auto"
    if not is_open or earlier is None:
        return asked, "auto" if is_open else "set"
    before = of(earlier)
    return before, "auto" if before == "auto" else "resumed"


def _place(config: RunConfig, role: Role) -> tuple[str, bool, int]:
    """A learner's model, whether it computes on a GPU, and its threads."""
    group, model = getattr(config, role).group, getattr(config, role).model.model
    return model, group.gpus_per_rank > 0, group.threads or share_of_cores(model, group.num_ranks)


def _place_of_rollout(config: RunConfig) -> tuple[str, bool, int]:
    rollout, model = config.rollout, config.policy.model.model
    return (
        model,
        rollout.gpus_per_worker > 0,
        rollout.threads or share_of_cores(model, rollout.num_workers),
    )


def _threads(config: RunConfig) -> list[Choice]:
    rollout, alone = config.rollout, not config.overlap and not config.max_staleness
    told = [
        (f"{role}.group.threads", part.group.threads, part.model.model, part.group.num_ranks)
        for role in _ROLES
        for part in [getattr(config, role)]
        if part.group.gpus_per_rank == 0
    ]
    if rollout.gpus_per_worker == 0:
        told.append(("rollout.threads", rollout.threads, config.policy.model.model, rollout.num_workers))
    return [
        threads_choice(key, asked, model=model, count=count, alone=alone) for key, asked, model, count in told
    ]


def _compute(config: RunConfig, role: Role, earlier: RunConfig | None) -> Choice:
    def of(config: RunConfig) -> PrecisionChoice:
        return getattr(config, role).model.compute

    return _precision(f"{role}.model.compute", *_asked(config, earlier, of), _place(config, role))


def _rollout_precision(config: RunConfig, earlier: RunConfig | None) -> Choice:
    def of(config: RunConfig) -> PrecisionChoice:
        return config.rollout.precision

    return _precision("rollout.precision", *_asked(config, earlier, of), _place_of_rollout(config))


def _precision(key: str, asked: PrecisionChoice, came: Came, place: tuple[str, bool, int]) -> Choice:
    model, on_gpu, threads = place
    speed = None if asked == "float32" else speed_of(model, on_gpu=on_gpu, threads=threads)
    return choose_precision(key, asked, came=came, speed=speed)


def _engine(config: RunConfig, earlier: RunConfig | None) -> Choice:
    asked, came = _asked(config, earlier, lambda config: config.rollout.engine)
    on_gpu = config.rollout.gpus_per_worker > 0
    return choose_engine(
        asked,
        came=came,
        rates=engine_rates(_engine_key(config)),
        suits=vllm_suits(on_gpu=on_gpu),
        elsewhere=on_gpu and not machine.gpus(),
    )


def _engine_key(config: RunConfig) -> str:
    model, on_gpu, threads = _place_of_rollout(config)
    gpus = machine.gpus() if on_gpu else ()
    device = gpus[0].name if gpus else "a GPU" if on_gpu else f"{threads} threads"
    return engine_key(
        model=model,
        precision=config.rollout.dtype,
        device=f"{config.rollout.num_workers} × {device}",
        responses=_responses(config),
        tokens=config.rollout.max_response_tokens,
    )


def _responses(config: RunConfig) -> int:
    """Responses of a step that fall to one worker, at most."""
    return -(-config.prompts_per_step // config.rollout.num_workers) * config.rollout.responses_per_prompt


def _batch(config: RunConfig, earlier: RunConfig | None) -> Choice:
    rollout = config.rollout
    asked, came = _asked(config, earlier, lambda config: config.rollout.batch_sequences)
    model, on_gpu, threads = _place_of_rollout(config)
    shape, facts = shape_of(model), _known_facts(model)

    def rates_of(sizes: tuple[int, int]) -> dict[int, float]:
        return find_pass_rates(shape, threads=threads, precision=rollout.dtype, sizes=sizes, trains=False)

    longest = config.data.max_prompt_tokens + rollout.max_response_tokens
    return choose_batch(
        asked,
        came=came,
        responses=_responses(config),
        on_gpu=on_gpu,
        cache=None if facts is None else cache_bytes(facts, longest, rollout.dtype),
        memory=memory_for_cache(
            total=machine.memory().total,
            workers=rollout.num_workers,
            engine=rollout.engine,
            kv_cache_gib=rollout.kv_cache_gib,
        ),
        rates_of=None if on_gpu or is_tiny(shape) else rates_of,
    )


def _tokens(config: RunConfig, role: Role, earlier: RunConfig | None) -> Choice:
    def of(config: RunConfig) -> SizeChoice:
        return getattr(config, role).micro_batch_tokens

    part, key = getattr(config, role), f"{role}.micro_batch_tokens"
    asked, came = _asked(config, earlier, of)
    model, on_gpu, threads = _place(config, role)
    shape, facts = shape_of(model), _known_facts(model)
    rates: dict[int, float] | None = None
    if on_gpu:
        sizes = [gpu.total for gpu in machine.gpus() if gpu.total]
        best, told = MOST, "on a GPU, of which nothing is known here"
        if sizes and facts is not None:
            fixed, each = pass_memory(facts, part.model, has_logits=role == "policy", on_gpu=True)
            card = int(min(1.0, part.group.gpus_per_rank) * min(sizes))
            best, told = by_memory(card=card, fixed=fixed, per_token=each)
    elif is_tiny(shape):
        best, told = MOST, "the model is so small that it makes no difference"
    else:
        rates = find_pass_rates(shape, threads=threads, precision=part.model.dtype)
        each = None if facts is None else pass_memory(facts, part.model, has_logits=False, on_gpu=False)[1]
        memory = machine.memory().total // part.group.num_ranks
        best, told = by_rates(rates, memory=memory, per_token=each)
    if asked == "auto":
        return Choice(key=key, taken=best, came="auto", reason=told)
    return set_tokens(key, asked, came=came, rates=rates, best=best)


def _known_facts(model: str) -> ModelFacts | None:
    """Facts of a model whose sizes are all there."""
    facts = facts_of(model)
    if facts is None:
        return None
    shape = facts.architecture
    return None if None in (shape.hidden_size, shape.num_layers, shape.vocab_size) else facts
