"""The configuration of a run, setting by setting, with what each would be by default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from gad_ray.config.load import validate
from gad_ray.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting.

    Attributes:
        key: Its dotted key.
        value: Its value, as YAML would write it.
        default: Its default; None where it has none and must be given.
        changed: Whether the value is another than the default. What has no default is not called changed.
        help: What it means.
    """

    key: str
    value: str
    default: str | None
    changed: bool
    help: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a run.

    Attributes:
        entries: In the configuration's order.
        notes: What could not be read.
    """

    entries: tuple[Setting, ...]
    notes: tuple[str, ...] = ()

    def by_key(self) -> dict[str, Setting]:
        """Dotted key → setting."""
        return {entry.key: entry for entry in self.entries}


def read_settings(path: Path) -> Settings:
    """The settings in a run's ``config.yaml``; of another version's, the values alone."""
    try:
        raw: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Settings(entries=(), notes=(f"{path.name} is not there",))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        return Settings(entries=(), notes=(f"{path.name} cannot be read: {error}",))
    if not isinstance(raw, dict):
        return Settings(entries=(), notes=(f"{path.name} holds no mapping of settings",))
    content = cast("dict[str, Any]", raw)
    try:
        config = validate(content, where=path.name)
    except ConfigError:
        plain = tuple(
            Setting(key=key, value=_as_text(value), default=None, changed=False, help="")
            for key, value in _leaves(content)
        )
        return Settings(
            entries=plain, notes=(f"{path.name} is of another version: its settings stand without defaults",)
        )
    return Settings(entries=tuple(_entries(config, None, "")))


def differences(runs: Mapping[str, Settings]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The settings in which runs differ: (key, value of each run), a dash where a run has none such."""
    tables = [settings.by_key() for settings in runs.values()]
    keys = dict.fromkeys(key for table in tables for key in table if key not in {"name", "output_dir"})
    rows = ((key, tuple(table[key].value if key in table else "–" for table in tables)) for key in keys)
    return tuple((key, values) for key, values in rows if len(set(values)) > 1)


def _entries(model: BaseModel, default: BaseModel | None, prefix: str) -> Iterator[Setting]:
    """The settings below a model.

    Args:
        model: The model.
        default: What stands in its place by default, None if nothing does.
        prefix: Dotted key of the model, with a dot at its end.
    """
    same_kind = type(default) is type(model)
    for name, info in type(model).model_fields.items():
        key, value = prefix + name, getattr(model, name)
        # A default of the parent's counts before the field's own.
        usual = getattr(default, name) if same_kind else info.get_default(call_default_factory=True)
        if isinstance(value, BaseModel):
            yield from _entries(value, usual if isinstance(usual, BaseModel) else None, key + ".")
            continue
        given = _plain(value)
        has_default = usual is not PydanticUndefined
        expected = _plain(usual) if has_default else None
        # A variant's name has a default only as the variant's own: what tells is the variant that was due.
        changed = has_default and given != expected
        if name == "name" and default is not None and not same_kind:
            expected, changed = getattr(default, "name", None), True
        yield Setting(
            key=key,
            value=_as_text(given),
            default=_as_text(expected) if has_default else None,
            changed=changed,
            help=" ".join((info.description or "").replace("``", "").split()),
        )


def _plain(value: Any) -> Any:
    """What JSON would hold."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in cast("list[Any]", value)]
    return value


def _leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(cast("dict[str, Any]", value), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("...\n").strip()
