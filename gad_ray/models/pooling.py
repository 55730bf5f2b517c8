"""Poolings as an exported critic records them."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import TypeAdapter

from gad_ray.core.pooling import Pooling, PoolingSettings

_READER: TypeAdapter[PoolingSettings] = TypeAdapter(Pooling)


def read_pooling(settings: Mapping[str, object]) -> PoolingSettings:
    """A pooling from its settings, as ``model_dump`` gives them.

    Raises:
        pydantic.ValidationError: If they are those of no pooling.
    """
    return _READER.validate_python(dict(settings))
