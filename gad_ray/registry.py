"""Variants of one thing, by name: each is a class of settings and what goes with it, entered where it is defined."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, cast

from pydantic import BaseModel, Discriminator, Tag, WrapValidator

from gad_ray.errors import ConfigError

C = TypeVar("C")
V = TypeVar("V")


class Registry(Generic[C, V]):
    """What belongs to each class of settings.

    Args:
        kind: What the variants are of, for errors.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._entries: dict[type[C], V] = {}

    def register(self, settings: type[C]) -> Callable[[V], V]:
        """Enter what is decorated as the variant that has these settings.

        Raises:
            ValueError: If there is one already.
        """

        def enter(variant: V) -> V:
            if settings in self._entries:
                raise ValueError(f"{settings.__name__} is registered twice as {self._kind}")
            self._entries[settings] = variant
            return variant

        return enter

    def of(self, settings: C) -> V:
        """The variant of given settings.

        Raises:
            ConfigError: If nobody has registered one.
        """
        try:
            return self._entries[type(settings)]
        except KeyError:
            raise ConfigError(
                f"{type(settings).__name__} is the settings of no registered {self._kind}",
                hint=f"register it where it is defined; there are {', '.join(c.__name__ for c in self._entries)}",
            ) from None

    def __iter__(self) -> Iterator[type[C]]:
        return iter(self._entries)


def is_import_path(name: object) -> bool:
    """Whether a variant's name is that of a class outside the package: ``module:Class``."""
    return isinstance(name, str) and ":" in name


def import_object(path: str) -> Any:
    """What ``module:name`` names.

    Raises:
        ValueError: If it cannot be imported.
    """
    module_name, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module_name), name)
    except Exception as error:
        raise ValueError(
            f"{path} cannot be imported ({type(error).__name__}: {error}): put its directory on PYTHONPATH, "
            "for the actors too"
        ) from error


def import_settings(path: str, base: type[C]) -> type[C]:
    """The class of settings that ``module:Class`` names. Its module is imported, which registers the variant.

    Args:
        path: The class.
        base: What it must be derived from.

    Raises:
        ValueError: If it cannot be imported, or is of another kind.
    """
    found = import_object(path)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"{path} is no {base.__name__}: derive its settings from that class")
    return found


def _name_of(value: object) -> str:
    given = (
        cast("dict[str, object]", value).get("name")
        if isinstance(value, dict)
        else getattr(value, "name", None)
    )
    return _IMPORTED if is_import_path(given) else str(given)


_IMPORTED = "imported"

BY_NAME = Discriminator(_name_of)
"""Tells the variants of a union apart by ``name``; each has its ``Tag``, those from outside the package :data:`IMPORTED`."""

IMPORTED = Tag(_IMPORTED)
"""The tag of settings whose name is an import path; goes with :func:`imported`."""


def imported(base: type[BaseModel]) -> WrapValidator:
    """Validates settings whose name is the import path of their class, which is derived from ``base``.

    Use it as ``Annotated[SerializeAsAny[Base], imported(Base), IMPORTED]``: so they are written with all of their
    settings, whatever their class.
    """

    def validate(value: object, _: object) -> BaseModel:
        if isinstance(value, base):
            return value
        settings = cast("dict[str, object]", value)
        return import_settings(str(settings["name"]), base).model_validate_json(json.dumps(settings))

    return WrapValidator(validate)
