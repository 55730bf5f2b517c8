"""What was measured on this machine, kept from one process to the next.

``rates.json`` beside the converted models: kind of rate → everything that it depends on, in words → name → rate.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from gad_ray import machine
from gad_ray.models.source import default_cache_dir
from gad_ray.observability.files import write_text

_logger = logging.getLogger(__name__)

Kind = Literal["precision", "passes", "engines"]
Kept = dict[str, dict[str, float]]

_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
"""Variables that keep libraries from instructions which the processor has."""

_measured: dict[str, Kept] = {}
"""By this process: where no file can be written, one process still decides once."""


def rates_file() -> Path:
    """Where rates are kept."""
    return default_cache_dir().parent / "rates.json"


def kept(kind: Kind, key: str) -> dict[str, float]:
    """Rates by name; empty where nothing is kept."""
    return _measured.get(kind, {}).get(key) or _read(rates_file()).get(kind, {}).get(key, {})


def keep(kind: Kind, key: str, rates: Mapping[str, float]) -> None:
    """Keep rates in place of what was kept of the same kind under the same key."""
    _measured.setdefault(kind, {})[key] = dict(rates)
    path = rates_file()
    content = _read(path)
    content.setdefault(kind, {})[key] = dict(rates)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        _logger.info("%s cannot be written (%s): it is measured again next time", path, error)


def forget_measured() -> None:
    """Drop what was measured; what finished runs have left of their engines stays."""
    engines = _read(rates_file()).get("engines", {})
    _measured.clear()
    rates_file().unlink(missing_ok=True)
    for key, rates in engines.items():
        keep("engines", key, rates)


def key_of(*parts: str) -> str:
    """The parts, behind all that every rate of this processor depends on."""
    cpu = machine.cpu()
    flags = hashlib.sha256(" ".join(sorted(cpu.flags)).encode()).hexdigest()[:8]
    limits = [f"{name}={os.environ[name]}" for name in _LIMITS if os.environ.get(name)]
    return " | ".join([cpu.model, f"flags {flags}", f"torch {_torch_version()}", *parts, *limits])


def _torch_version() -> str:
    """From the metadata: torch takes seconds to import."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return "none"


def _read(path: Path) -> dict[str, Kept]:
    """What is kept; a file that cannot be read holds nothing, and no rate but positive ones counts."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(kind): {
                str(key): {str(name): _rate(rate) for name, rate in rates.items()}
                for key, rates in keys.items()
            }
            for kind, keys in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _rate(value: Any) -> float:
    rate = float(value)
    if not (rate > 0 and math.isfinite(rate)):
        raise ValueError("a rate is a positive number")
    return rate
