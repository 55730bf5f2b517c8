"""From a recipe's name or a YAML file, plus ``key=value`` overrides, to a checked :class:`RunConfig`."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, cast, get_args

import yaml
from pydantic import BaseModel, ValidationError
from yaml.composer import ComposerError

from gad_ray.config.fit import FitMethod
from gad_ray.config.run import RunConfig
from gad_ray.errors import ConfigError

RECIPES = Path(__file__).resolve().parent.parent / "recipes"


def recipe_names() -> list[str]:
    """Names of the packaged recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(recipe: str) -> Path:
    """The YAML file of a packaged recipe's name or of a path.

    Raises:
        ConfigError: If there is neither a file nor a recipe of that name.
    """
    path = Path(recipe)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        if not path.is_file():
            raise ConfigError(
                f"no such file: {path}", hint="give a YAML file, or one of: " + ", ".join(recipe_names())
            )
        return path
    packaged = RECIPES / f"{recipe}.yaml"
    if packaged.is_file():
        return packaged
    raise ConfigError(f"no recipe is called '{recipe}'", hint=_suggest(recipe, recipe_names(), "recipes"))


def load_config(recipe: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a recipe or file, apply ``key=value`` overrides, and validate.

    Args:
        recipe: Name of a packaged recipe or path of a YAML file.
        overrides: ``dotted.key=value``; the value is read as YAML.

    Raises:
        ConfigError: Naming file, key, value and what was probably meant.
    """
    path = find_recipe(recipe)
    raw = _read_yaml(path)
    keys_of_overrides: set[str] = set()
    for item in overrides:
        keys_of_overrides.add(_apply_override(raw, item))
    return validate(raw, where=str(path), overridden=keys_of_overrides)


def validate(raw: Mapping[str, Any], *, where: str, overridden: Iterable[str] = ()) -> RunConfig:
    """Validate a mapping as read from YAML.

    Raises:
        ConfigError: Naming ``where``, the key, its value and the hint, for every fault found.
    """
    try:
        # Through JSON, in which pydantic's strict mode takes arrays for tuples.
        return RunConfig.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        faults = [_describe_fault(e, overridden) for e in error.errors(include_url=False)]
        raise ConfigError("\n".join(["the configuration cannot be used", *faults]), where=where) from None


def to_yaml(config: BaseModel) -> str:
    """The resolved configuration as YAML, readable by :func:`load_config`."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def config_hash(config: RunConfig) -> str:
    """SHA-256 over everything that shapes the numbers of a run: not its name, place or deadlines."""
    shaping = config.model_dump(
        mode="json",
        exclude={"name", "output_dir", "limits", "checkpoint", "records", "health", "report", "serve"},
    )
    # Backends differ in where they compute, not in what.
    for model in ("policy", "critic"):
        shaping[model].pop("backend")
    if config.critic.frozen is None:
        shaping["critic"].pop("frozen")
    # A run may be prolonged: the adversarial stage's length does not change the steps before it.
    shaping["stages"].pop("adversarial")
    fits = shaping.pop("fit")
    warm_start = config.stages.warm_start
    if warm_start != "none":
        shaping["warm_start"] = fits[warm_start]
    return _digest(shaping)


def fit_hash(config: RunConfig, method: FitMethod) -> str:
    """SHA-256 over everything that shapes the numbers of an offline fit, but for its length."""
    settings = config.model_dump(mode="json")
    fit = settings["fit"][method]
    shaping = {
        "method": method,
        "fit": {
            key: value for key, value in fit.items() if key not in {"steps", "epochs", "prompts_per_step"}
        },
        "prompts_per_step": config.prompts_per_fit_step(method),
        "policy": {key: settings["policy"][key] for key in ("model", "micro_batch_tokens", "group")},
        **{key: settings[key] for key in ("seed", "data", "rollout", "evaluation")},
    }
    return _digest(shaping)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


_SHOWN = 120  # characters of an override that an error repeats
_MAX_DEPTH, _MAX_VALUES = 64, 100_000
"""Of a configuration: levels within levels, and values in all once its aliases are followed. Real ones have 5 and 300."""


class _SettingsLoader(yaml.SafeLoader):
    """YAML that holds what JSON can, and refuses a key given twice instead of keeping the last.

    A date stays text, as in YAML 1.2; tags for bytes, sets and the like are refused, and so are keys that are no names.
    """

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node, no deeper than a configuration can be."""
        self._depth += 1
        try:
            if self._depth > _MAX_DEPTH:
                mark = cast(Any, self.peek_event()).start_mark
                raise ComposerError(None, None, f"more than {_MAX_DEPTH} levels", mark)
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def _mapping_without_duplicates(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = cast(Any, loader.construct_object(key_node, deep=True))
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(
                None, None, f"a key is a name, not {key!r:.40}", key_node.start_mark
            )
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"key '{key}' is given twice", key_node.start_mark
            )
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


_SettingsLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates)
# YAML 1.1 takes 1e-5 for text; everybody who writes it means the number, as YAML 1.2 does.
_SettingsLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


_OF_JSON = ("null", "bool", "int", "float", "str", "seq", "map")
_SettingsLoader.yaml_constructors = {
    tag: construct
    for tag, construct in _SettingsLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix("tag:yaml.org,2002:") in _OF_JSON
}
_SettingsLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _SettingsLoader.yaml_implicit_resolvers.items()
}


def _parse(text: str) -> Any:
    """The value that YAML stands for.

    Raises:
        ValueError: If it is no YAML, or holds what no setting can be; the message says what.
    """
    try:
        value = yaml.load(text, Loader=_SettingsLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    left, seen = [value], 0
    while left:
        seen += 1
        if seen > _MAX_VALUES:
            raise ValueError(f"more than {_MAX_VALUES:,} values once its aliases are followed")
        part = left.pop()
        if isinstance(part, str):
            part.encode()  # half of a surrogate pair is no text
        elif isinstance(part, dict):
            left += [*part.keys(), *part.values()]
        elif isinstance(part, list):
            left += part
    return value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        raw = _parse(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no UTF-8 is one, too
        raise ConfigError(f"not readable as YAML: {error}", where=str(path)) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if not _is_mapping(raw):
        raise ConfigError("the file does not hold a mapping of settings", where=str(path))
    return raw


def _is_mapping(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _apply_override(raw: dict[str, Any], item: str) -> str:
    key, separator, text = item.partition("=")
    key = key.strip()
    if not separator or not key:
        raise ConfigError(
            f"'{item}' is not an override", hint="write key=value, e.g. rollout.temperature=0.6"
        )
    try:
        value = _parse(text)
    except ValueError as error:
        raise ConfigError(
            f"the value of '{key}' is not readable as YAML: {error}", where=item[:_SHOWN]
        ) from None
    *parents, last = key.split(".")
    node = raw
    for part in parents:
        child = node.setdefault(part, {})
        if child is None:
            child = node[part] = {}
        if not _is_mapping(child):
            raise ConfigError(f"'{part}' in '{key}' is a value, not a group of settings", where=item[:_SHOWN])
        node = child
    # A stage's or a fit's length is one of two settings: naming one in an override replaces the other.
    if parents[:1] in (["stages"], ["fit"]) and last in {"steps", "epochs"} and value is not None:
        node.pop("epochs" if last == "steps" else "steps", None)
    node[last] = value
    return key


def _describe_fault(error: Any, overridden: Iterable[str]) -> str:
    place = _resolve(error["loc"])
    key = ".".join(place.keys)
    value = error.get("input")
    # An override that goes on below an unknown key (foo.bar=1) is reported at that key.
    around = [o for o in overridden if f"{key}.".startswith(f"{o}.") or f"{o}.".startswith(f"{key}.")]
    origin = " (from the command line)" if around else ""
    if error["type"] == "extra_forbidden":
        return f"  {key}{origin}: {_told_of_unknown(place)}"
    if error["type"] == "missing":
        return f"  {key}: is needed and not given"
    if error["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        tags = [str(tag) for variant in place.below if (tag := _tag_of(variant)) is not None]
        given = value.get("name") if _is_mapping(value) else None
        if given is None:
            return f"  {key}.name{origin}: is needed and not given; it is one of: {', '.join(tags)}"
        return f"  {key}.name = {given!r}{origin}: no such variant. {_suggest(str(given), tags, 'variants')}"
    message = str(error["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    shown = "" if _is_mapping(value) else f" = {value!r}"
    return f"  {key}{shown}{origin}: {message}" if key else f"  {message}"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the configuration a fault is.

    Attributes:
        keys: Keys of the file, from the top.
        beside: Models that the last key was looked up in: one, or all variants of which none was named.
        variants: All variants that the one in ``beside`` was chosen from; none if it is no variant.
        below: Models that the last key may hold.
    """

    keys: Sequence[str]
    beside: Sequence[type[BaseModel]]
    variants: Sequence[type[BaseModel]]
    below: Sequence[type[BaseModel]]


def _told_of_unknown(place: _Place) -> str:
    """What is said of a setting that does not exist where it was given: often it is another variant's."""
    last = place.keys[-1]
    fields = sorted({name for model in place.beside for name in model.model_fields})
    owners = [str(_tag_of(variant)) for variant in place.variants if last in variant.model_fields]
    if len(place.beside) != 1 or not owners:
        return f"no such setting. {_suggest(last, fields, 'settings here')}"
    chosen, parent = _tag_of(place.beside[0]), ".".join(place.keys[:-1])
    named = " and ".join(f"'{owner}'" for owner in owners)
    has = "has" if len(owners) == 1 else "have"
    return (
        f"'{chosen}' has no such setting, {named} {has}. Leave it out, or set {parent}.name to '{owners[0]}' "
        f"(settings of '{chosen}': {', '.join(fields)})"
    )


def _resolve(location: Sequence[str | int]) -> _Place:
    """A validation error's location as keys of the file, with the models around the last of them.

    pydantic puts the tag of a discriminated union into the location, as if it were a key.
    """
    keys: list[str] = []
    beside: list[type[BaseModel]] = []
    variants: list[type[BaseModel]] = []
    chosen_from: list[type[BaseModel]] = []
    candidates: list[type[BaseModel]] = [RunConfig]
    for position, part in enumerate(location):
        infos = [info for candidate in candidates if (info := candidate.model_fields.get(str(part)))]
        is_tag = len(candidates) > 1 and any(_tag_of(c) == part for c in candidates)
        if infos or isinstance(part, int) or (position == len(location) - 1 and not is_tag):
            keys.append(str(part))
            beside, variants = candidates, chosen_from
            candidates = [model for info in infos for model in _models_in(info.annotation)] or candidates
            # The number of an entry in a list does not choose among its variants; its tag does.
            chosen_from = chosen_from if isinstance(part, int) else []
        else:
            chosen_from = candidates
            candidates = [c for c in candidates if _tag_of(c) == part] or candidates
    return _Place(keys=keys, beside=beside, variants=variants, below=candidates)


def _tag_of(model: type[BaseModel]) -> object:
    name = model.model_fields.get("name")
    return name.default if name else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for argument in get_args(annotation) for m in _models_in(argument)]


def _suggest(word: str, known: Sequence[str], what: str) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    listing = f"{what}: {', '.join(known)}"
    return f"Did you mean '{close[0]}'? ({listing})" if close else f"Known {listing}"
