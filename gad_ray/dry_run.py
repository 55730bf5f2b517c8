"""Everything about a run that can be known without training: files, rows, models, lengths, sizes, memory.

No actor is started and no weight is read: models are loaded from their files' headers, as the run itself would load
them, and rows are read and tokenised as it would do it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gad_ray import machine
from gad_ray.auto import resolve
from gad_ray.config import FitMethod, RunConfig, ServeConfig
from gad_ray.config.critic import ExportedCriticSettings
from gad_ray.config.explain import batch_arithmetic, fit_arithmetic
from gad_ray.dry_run_models import (
    POLICY,
    POLICY_AND_CRITIC,
    chat_format,
    check_lengths,
    check_probe,
    check_teacher_texts,
    describe_models,
    sizes_are_known,
)
from gad_ray.errors import ConfigError, DataError, GadError, RolloutError
from gad_ray.findings import Finding, Severity
from gad_ray.machine import GIB
from gad_ray.memory_estimate import ActorMemory, estimate_fit_memory, estimate_memory
from gad_ray.models.critic_meta import exported_fingerprint
from gad_ray.registry import import_object, is_import_path

if TYPE_CHECKING:
    from gad_ray.data.dataset import LoadedData
    from gad_ray.models.chat import ChatFormat

_CURRENT_CLUSTER = Path("/tmp/ray/ray_current_cluster")  # noqa: S108 - where Ray notes the cluster it started


@dataclass(frozen=True, slots=True)
class DryRun:
    """What was found.

    Attributes:
        config: The configuration, in which nothing is ``auto``.
        sections: Title → sentences.
        warnings: What the run could do with, or what could not be checked.
        problems: Errors with which the run would not start.
    """

    config: RunConfig
    sections: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    warnings: list[str] = field(default_factory=list[str])
    problems: list[GadError] = field(default_factory=list[GadError])

    @property
    def findings(self) -> list[Finding]:
        """Warnings, then problems, as they are reported."""
        warned = [Finding(rule="dry run", severity=Severity.WARNING, evidence=text) for text in self.warnings]
        stopped = [
            Finding(
                rule=error.where or "dry run",
                severity=Severity.CRITICAL,
                evidence=error.message,
                hints=() if error.hint is None else (error.hint,),
            )
            for error in self.problems
        ]
        return [*warned, *stopped]

    def check(self, test: bool, error: GadError) -> None:
        """Note an error as a problem unless the test holds."""
        if not test:
            self.problems.append(error)


def dry_run(config: RunConfig, *, fit: FitMethod | None = None) -> DryRun:
    """Check a run. Problems are collected, not raised: all are shown at once.

    Args:
        config: The run.
        fit: The method of an offline fit, in which there is no critic; a game when None.
    """
    resolved = resolve(config)
    config = resolved.config
    found = DryRun(config, sections={"decided on this machine": resolved.lines}, warnings=resolved.warnings)
    found.warnings.extend(config.accepted if fit is None else [])
    _check_engine(config, found)
    engine = config.rollout.engine
    roles = POLICY_AND_CRITIC if fit is None and config.trains_critic else POLICY
    facts = describe_models(config, roles, found)
    formats = {role: chat_format(role, of(config), facts, engine, found) for role, of in roles}
    check_lengths(config, facts, found)
    if fit is None and isinstance(config.critic.frozen, ExportedCriticSettings):
        try:
            exported_fingerprint(Path(config.critic.frozen.path))
        except GadError as error:
            found.problems.append(error)
    described = [_describe_template(role, chat) for role, chat in formats.items() if chat is not None]
    if any(described):
        found.sections["chat templates"] = [line for lines in described for line in lines]
    if (chat := formats["policy"]) is not None:
        _check_thoughts(chat, found)
        if fit is None:
            check_probe(facts["policy"], chat, found)
    data = _load_data(config, formats["policy"], formats.get("critic"), found)
    _check_rewards(config, data, found)
    if data is not None:
        if formats["policy"] is not None:
            check_teacher_texts(config, data, facts["policy"], formats["policy"], found)
        if fit is None:
            _check_pairs(config, data, formats.get("critic"), found)
        _check_batches(config, fit, data, found)
    _check_gpus(config, fit, found)
    if fit is None and config.serve.enabled:
        _check_endpoint(config.serve, found)
    if sizes_are_known(facts, found) and len(facts) == len(roles):
        if fit is None:
            actors = estimate_memory(
                config, policy=facts["policy"], critic=facts.get("critic"), engine=engine
            )
        else:
            actors = estimate_fit_memory(config, policy=facts["policy"], engine=engine)
        found.sections["memory, roughly"] = _compare_memory(actors, fit, found)
    return found


def _check_batches(config: RunConfig, fit: FitMethod | None, data: LoadedData, found: DryRun) -> None:
    """The sizes in words, and whether there are enough prompts for a step of every kind."""
    num_prompts = len(data.train)
    warm_start = None if config.stages.warm_start == "none" else config.stages.warm_start
    method = fit or warm_start
    needed = {} if fit is not None else {"prompts_per_step": config.prompts_per_step}
    if method is not None and config.fit.of(method).prompts_per_step is not None:
        needed[f"fit.{method}.prompts_per_step"] = config.prompts_per_fit_step(method)
    elif fit is not None:
        needed["prompts_per_step"] = config.prompts_per_step
    for name, size in needed.items():
        found.check(
            num_prompts >= size,
            DataError(
                f"{name} = {size}, but there are only {num_prompts} prompts to train on",
                hint=f"lower {name}, hold fewer prompts out, or name more data",
            ),
        )
    if method is not None:
        found.sections[f"fit by {method}"] = fit_arithmetic(config, method, num_prompts)
    if fit is None:
        _check_curriculum(config, data, found)
        found.sections["batches"] = batch_arithmetic(config, num_prompts)


def _check_engine(config: RunConfig, found: DryRun) -> None:
    """Whether the engine can be had. vLLM is looked for, not imported."""
    engine = config.rollout.engine
    # What ``auto`` comes to on other machines' GPUs is theirs to have.
    found.check(
        engine != "vllm"
        or importlib.util.find_spec("vllm") is not None
        or (config.rollout.gpus_per_worker > 0 and not machine.gpus()),
        ConfigError(
            "rollout.engine = vllm, but vLLM is not installed",
            hint="install it (make setup), or use rollout.engine=auto",
        ),
    )
    if is_import_path(engine):
        try:
            import_object(engine)
        except ValueError as error:
            found.problems.append(RolloutError(str(error), where="rollout.engine", hint="check the path"))


def _check_rewards(config: RunConfig, data: LoadedData | None, found: DryRun) -> None:
    """Whether the user's reward functions can be imported and, if they are declared and there are data, give a reward."""
    from gad_ray.rewards.format_terms import check_reward_functions, try_reward_functions

    try:
        declared = check_reward_functions(config.reward)
        if data is not None:
            # A dry run changes nothing: what `function: shutil:move` names would.
            try_reward_functions(config.reward, data.train[0], only_declared=True)
    except GadError as error:
        found.problems.append(error)
        return
    if declared:
        found.sections["reward functions"] = [
            f"{name}: imported (which runs its module)"
            + (
                ", and tried on a teacher's response"
                if is_declared and data is not None
                else ""
                if is_declared
                else "; it takes a prompt and a response. It is not called here, as it is not declared with "
                "@reward_function of gad_ray.core.rewards; a run calls it"
            )
            for name, is_declared in declared.items()
        ]


def _describe_template(role: str, chat: ChatFormat) -> list[str]:
    """What in a template may vary, beside the conversation."""
    from gad_ray.models.template import prints_date, template_variables

    text = chat.template_text
    lines: list[str] = []
    if names := template_variables(text):
        lines.append(f"{role}: reads {', '.join(names)} ({role}.model.template_variables sets them)")
    if prints_date(text):
        lines.append(f"{role}: prints the date, which is always the same day ({role}.model.template_date)")
    return lines


def _check_thoughts(chat: ChatFormat, found: DryRun) -> None:
    """Warn where the policy's answers would begin inside a thought, which the teacher's text does not."""
    from gad_ray.data.layout import opened_thought

    if mark := opened_thought(chat.prompt_text):
        found.warnings.append(
            f"the policy's chat template ends a prompt with {mark}: every answer begins inside a thought, and a "
            "teacher's text does not; switch it off with policy.model.template_variables (often enable_thinking: false), or "
            "name a template that opens none with policy.model.chat_template"
        )


def _check_curriculum(config: RunConfig, data: LoadedData, found: DryRun) -> None:
    """Whether the curriculum leaves a step's prompts; that there are any at all is checked before."""
    from gad_ray.data.curriculum import make_curriculum

    num_prompts = len(data.train)
    if num_prompts < config.prompts_per_step:
        return
    try:
        make_curriculum(
            config.data.curriculum,
            difficulty=data.difficulty,
            num_rows=num_prompts,
            batch_size=config.prompts_per_step,
        )
    except GadError as error:
        found.problems.append(error)


def _load_data(
    config: RunConfig, chat: ChatFormat | None, critic: ChatFormat | None, found: DryRun
) -> LoadedData | None:
    from gad_ray.data.dataset import load_dataset
    from gad_ray.data.stats import describe
    from gad_ray.models.run_data import prompt_counter

    # Kept, for whoever wants to see what is in it; a dry run leaves nothing under output_dir.
    quarantine = Path(tempfile.mkdtemp(prefix=f"gad-ray-dry-run-{config.name}-")) / "quarantine.jsonl"
    try:
        data = load_dataset(
            config.data,
            count_prompt_tokens=prompt_counter(chat, critic) if chat else lambda _: 0,
            count_response_tokens=lambda text: len(chat.response_ids(text)) if chat else 0,
            quarantine_path=quarantine,
        )
    except GadError as error:
        found.problems.append(error)
        return None
    finally:
        if not quarantine.exists() or quarantine.stat().st_size == 0:
            shutil.rmtree(quarantine.parent)
    found.sections["data"] = [line for line in describe(data) if chat or "tokens in the median" not in line]
    return data


def _check_pairs(config: RunConfig, data: LoadedData, chat: ChatFormat | None, found: DryRun) -> None:
    """Whether the critic can take every teacher response with its prompt, in its own tokens."""
    if chat is None:
        return
    lengths = {
        example.id: len(chat.prompt_ids(example.messages)) + len(chat.response_ids(example.teacher_response))
        for example in (*data.train, *data.heldout)
    }
    longest = max(lengths, key=lengths.__getitem__)
    found.sections["data"].append(
        f"prompt and teacher response: at most {lengths[longest]} tokens of the critic"
    )
    too_long = sum(length > config.critic.max_tokens for length in lengths.values())
    found.check(
        not too_long,
        DataError(
            f"critic.max_tokens = {config.critic.max_tokens}, and {too_long} rows are longer with the teacher's response; "
            f"the longest, {longest!r}, has {lengths[longest]} tokens",
            hint=f"raise critic.max_tokens, or lower data.max_prompt_tokens ({config.data.max_prompt_tokens}) and "
            f"data.max_teacher_tokens ({config.data.max_teacher_tokens})",
        ),
    )


def _check_endpoint(serve: ServeConfig, found: DryRun) -> None:
    """Whether the critic may and can be served where it is to be."""
    from gad_ray.serving.deployment.address import settings_of_run, url_of

    try:
        settings_of_run(serve, environment=os.environ)
    except GadError as error:
        found.problems.append(error)
    every = "every step" if serve.publish_every == 1 else f"every {serve.publish_every} steps"
    each = f"{serve.cpus_per_replica:g} cores and {serve.gpus_per_replica:g} GPUs"
    found.sections["serving"] = [
        f"the critic at {url_of(serve.host, serve.port)}, a new one {every}",
        f"beside the run's actors: {serve.num_replicas} × {each}",
    ]


def _check_gpus(config: RunConfig, fit: FitMethod | None, found: DryRun) -> None:
    policy = config.policy.group.num_ranks * config.policy.group.gpus_per_rank
    critic = config.critic.group.num_ranks * config.critic.group.gpus_per_rank
    rollout = config.rollout.num_workers * config.rollout.gpus_per_worker
    serve = sum(bundle["GPU"] for bundle in config.serve.bundles)
    # In a fit, the rollout workers have gone when the learner comes.
    needed = policy + critic + rollout + serve if fit is None else max(policy, rollout)
    here = len(machine.gpus()) if needed else 0
    if needed <= here:
        return
    message = f"the actors ask for {needed:g} GPUs, and this machine has {here}"
    if os.environ.get("RAY_ADDRESS") or _CURRENT_CLUSTER.exists():
        found.warnings.append(f"{message}: the cluster must have the others")
        return
    hint = (
        "run it in a cluster that has them, or lower policy.group, critic.group and rollout.gpus_per_worker"
    )
    found.problems.append(ConfigError(message, hint=hint))


def _compare_memory(actors: tuple[ActorMemory, ...], fit: FitMethod | None, found: DryRun) -> list[str]:
    sizes = [actor.num * (actor.parts["process"] if actor.on_gpu else actor.each) for actor in actors]
    # In a fit they take turns.
    in_main = sum(sizes) if fit is None else max(sizes)
    total = machine.memory().total
    notes: list[str] = []
    if fit is not None:
        notes.append("policy and rollout take turns: the larger of them counts")
    if fit == "soda":
        notes.append("no second model: what the base policy gives to each response is computed once, before")
    lines = [
        *map(str, actors),
        *notes,
        f"together {in_main / GIB:.1f} GiB of main memory; this machine has {total / GIB:.1f}",
    ]
    smaller = "smaller micro_batch_tokens, gradient_checkpointing, lora, or a smaller model"
    if in_main > total:
        found.warnings.append(
            f"about {in_main / GIB:.0f} GiB are needed, and this machine has {total / GIB:.0f}: on this machine alone "
            f"the run would end for lack of memory; what helps: {smaller}"
        )
    gpus = [gpu.total for gpu in machine.gpus() if gpu.total] if any(actor.on_gpu for actor in actors) else []
    found.warnings.extend(
        f"{actor.role}: about {actor.each / GIB:.0f} GiB on a GPU of {min(gpus) / GIB:.0f} GiB; what helps: {smaller}"
        for actor in actors
        if actor.on_gpu and gpus and actor.each > min(gpus)
    )
    return lines
