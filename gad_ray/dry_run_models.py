"""The part of a dry run that looks at the models: what they are, and that training can load them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gad_ray.config import ModelConfig, RunConfig
from gad_ray.errors import GadError, ModelError
from gad_ray.machine import GIB
from gad_ray.models.facts import ModelFacts

if TYPE_CHECKING:
    from gad_ray.data.dataset import LoadedData
    from gad_ray.dry_run import DryRun
    from gad_ray.models.chat import ChatFormat

Roles = tuple[tuple[str, Callable[[RunConfig], ModelConfig]], ...]
POLICY: Roles = (("policy", lambda config: config.policy.model),)
POLICY_AND_CRITIC: Roles = (*POLICY, ("critic", lambda config: config.critic.model))


def describe_models(config: RunConfig, roles: Roles, found: DryRun) -> dict[str, ModelFacts]:
    """What each role's model is, told in a section; a model that cannot be used is a problem."""
    from gad_ray.models.source import describe_model

    facts: dict[str, ModelFacts] = {}
    lines: list[str] = []
    for role, of in roles:
        name = of(config).model
        try:
            facts[role] = described = describe_model(name)
        except GadError as error:
            found.problems.append(_in_role(error, f"{role}.model.model"))
            continue
        positions = described.architecture.max_positions
        lines.append(
            f"{role}: {name}, {described.architecture.name}, {described.num_parameters / 1e6:.1f} M parameters, "
            f"{described.num_bytes / GIB:.2f} GiB as {described.format}, "
            + (f"up to {positions} tokens" if positions else "longest sequence unknown")
        )
    found.sections["models"] = lines
    return facts


def chat_format(
    role: str, model: ModelConfig, facts: dict[str, ModelFacts], engine: str, found: DryRun
) -> ChatFormat | None:
    """The tokenizer with its template, where both are at hand without a download or a conversion.

    The model is loaded with it, but for its weights' numbers: what training would refuse is refused here.
    """
    from gad_ray.models.checks import check_model
    from gad_ray.models.source import is_local, resolve_model

    described = facts.get(role)
    if described is None:
        return None
    if described.format == "gguf" or not is_local(model.model):
        what = "is not converted yet" if described.format == "gguf" else "is not downloaded yet"
        found.warnings.append(
            f"{role}: {model.model} {what}, so no text was tokenised and no weight looked at: neither lengths nor "
            "whether weights, tokenizer and config go together are checked"
        )
        found.check(
            described.has_chat_template or model.chat_template is not None,
            ModelError(
                f"{model.model} has no chat template",
                where=role,
                hint=f"set the key {role}.model.chat_template",
            ),
        )
        return None
    try:
        return check_model(resolve_model(model.model), model, role=role, engine=engine)
    except GadError as error:
        found.problems.append(_in_role(error, f"{role}.model"))
        return None


def check_lengths(config: RunConfig, facts: dict[str, ModelFacts], found: DryRun) -> None:
    """Whether the models take sequences as long as the limits allow."""
    from gad_ray.models.checks import length_problems, unknown_lengths

    found.warnings.extend(unknown_lengths(facts))
    found.problems.extend(length_problems(config, facts))
    longest = config.data.max_prompt_tokens + config.rollout.max_response_tokens
    # At as many, too: the critic tokenises the text of a response anew, which can come to more than were sampled.
    if "critic" in facts and longest >= config.critic.max_tokens:
        found.warnings.append(
            f"the longest prompt and response make {longest} tokens of the policy, and critic.max_tokens is "
            f"{config.critic.max_tokens}: a pair that the critic cannot take stops the run"
        )


def check_teacher_texts(
    config: RunConfig, data: LoadedData, policy: ModelFacts, chat: ChatFormat, found: DryRun
) -> None:
    """Whether the policy takes every prompt with its teacher's response."""
    from gad_ray.models.checks import check_teacher_lengths

    try:
        check_teacher_lengths(config, policy, chat, (*data.train, *data.heldout))
    except GadError as error:
        found.problems.append(error)


def check_probe(policy: ModelFacts, chat: ChatFormat, found: DryRun) -> None:
    """Whether the policy takes the text by which a rollout engine shows that it has taken new weights."""
    from gad_ray.models import checks
    from gad_ray.rollout.worker import probe_row

    try:
        checks.check_probe(policy, probe_row(chat))
    except GadError as error:
        found.problems.append(error)


def sizes_are_known(facts: dict[str, ModelFacts], found: DryRun) -> bool:
    """Whether memory can be estimated; what is not known is said."""
    unknown = [role for role, described in facts.items() if not described.architecture.sizes_are_known]
    if unknown:
        found.warnings.append(
            f"{' and '.join(unknown)}: the config does not say all of the model's sizes: memory is not estimated"
        )
    elif "policy" in facts and facts["policy"].architecture.key_value_width is None:
        found.warnings.append(
            "policy: how wide its keys and values are is unknown: their cache is estimated as wide as the model"
        )
    return not unknown


def _in_role(error: GadError, key: str) -> GadError:
    """The same error, saying which key of the configuration led to it."""
    where = f"{key}: {error.where}" if error.where else key
    return type(error)(error.message, where=where, hint=error.hint)
