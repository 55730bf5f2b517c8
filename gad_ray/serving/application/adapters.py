"""LoRA critics as further models of the service: one backbone in memory, adapters loaded when they are asked for.

    request's model ──► AdapterPool ──► in memory? ──► ServedCritic on the shared backbone ──► batcher
                             │ no: its directory is loaded, the one not asked for longest makes room
                             └ not fit: refused, told and counted; not tried again until its files change

Each is a critic of its own to the batcher: no pass holds rows of two.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import nn

from gad_ray.client.schema import ModelCard, ModelVersion
from gad_ray.critics.value_head import ValueHeadCritic
from gad_ray.errors import GadError, ModelError
from gad_ray.models.adapter import ADAPTER_META, adapter_in, is_adapter, load_adapter, read_adapter
from gad_ray.models.load import TORCH_DTYPES, is_adapted, load_backbone
from gad_ray.models.lora import AdaptedBackbone, SharedBackbone
from gad_ray.models.onednn_linear import pack_linears
from gad_ray.models.sequence_packing import attend_by_rows
from gad_ray.models.source import resolve_model
from gad_ray.serving.application.errors import ApiError
from gad_ray.serving.application.loaded_critic import ServedCritic

_logger = logging.getLogger("ray.serve.gad_ray")

_Stamp = tuple[int, int]


class AdapterWatcher(Protocol):
    """Is told of adapters."""

    def adapter_done(self, *, result: str) -> None:
        """One was ``loaded``, ``refused``, or ``evicted``."""
        ...


@dataclass(frozen=True, slots=True)
class _Loaded:
    critic: ServedCritic
    stamp: _Stamp


class AdapterPool:
    """The adapters of a replica. Lives in one event loop; loading is done in a thread.

    Args:
        directories: What clients call each adapter → where it is: an adapter's directory, or the export of a LoRA
            critic, which holds one.
        backbone: Model or directory that they were trained on; None: that of the critic which :meth:`use` names.
        max_loaded: Adapters in memory at once.
        device: Where to compute.
        watcher: Is told what happens.
    """

    def __init__(
        self,
        directories: Mapping[str, Path],
        *,
        backbone: str | None,
        max_loaded: int,
        device: torch.device | None = None,
        watcher: AdapterWatcher | None = None,
    ) -> None:
        self._directories = dict(directories)
        self._backbone = backbone
        self._max_loaded = max_loaded
        self._device = device
        self._watcher = watcher
        self._first: ServedCritic | None = None
        self._shared: SharedBackbone | None = None
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()
        self._refused: dict[str, tuple[_Stamp | None, str]] = {}
        self._turn = asyncio.Lock()
        self._opening = threading.Lock()

    @property
    def loaded(self) -> list[str]:
        """Names of those in memory, the one that was asked for last at the end."""
        return list(self._loaded)

    def use(self, critic: ServedCritic) -> None:
        """Take the backbone of the first critic that is served, where none is named."""
        self._first = self._first or critic

    def name_of(self, wanted: str) -> str | None:
        """The adapter that a request names: by its name, its fingerprint, or the beginning of that."""
        if wanted in self._directories:
            return wanted
        return next((card.id for card in self.cards() if wanted in names_of(card.model_version)), None)

    async def get(self, name: str) -> ServedCritic:
        """An adapter's critic, loaded if need be; a changed one again, and if that is not fit, the one before.

        Raises:
            ApiError: 404, if it cannot be served, with the reason.
        """
        async with self._turn:
            stamp = _stamp(adapter_in(self._directories[name]))
            present = self._loaded.get(name)
            known = self._refused.get(name)
            if present is not None and (stamp == present.stamp or (known and known[0] == stamp)):
                self._loaded.move_to_end(name)
                return present.critic
            if known is None or known[0] != stamp:
                critic = await self._load(name, stamp)
                if critic is not None:
                    return critic
            if present is not None:
                return present.critic
            raise ApiError(
                f"the model {name!r} cannot be served: {self._refused[name][1]}",
                status=404,
                code="model_refused",
                param="model",
            )

    def open(self, directory: Path) -> ServedCritic:
        """Load an adapter and put it on the shared backbone; called in threads.

        Raises:
            GadError: If it is damaged, or not for this backbone.
        """
        directory = adapter_in(directory)
        facts = read_adapter(directory)
        with self._opening:
            shared = self._shared or self._make_shared(TORCH_DTYPES[facts.dtype])
            model, _ = load_adapter(directory, shared)
            # Only one that fits decides which backbone stays in memory.
            self._shared = shared
        model.to(self._device)
        return ServedCritic(ValueHeadCritic(model=model, step=facts.step, temperature=facts.temperature))

    def load_critic(self, whole: Callable[[Path], ServedCritic], directory: Path) -> ServedCritic:
        """The critic in a directory, for whoever serves it under the service's own name.

        Args:
            whole: Loads one that brings its backbone.
            directory: Of such a one, or of an adapter, which is put on the shared backbone.

        Raises:
            GadError: If it is not fit.
        """
        return self.open(directory) if is_adapter(directory) else whole(directory)

    def cards(self) -> list[ModelCard]:
        """What ``/v1/models`` tells of them, in memory or not; one that says nothing of itself is left out."""
        found: list[ModelCard] = []
        for name, place in self._directories.items():
            directory = adapter_in(place)
            try:
                facts = read_adapter(directory)
            except GadError:
                continue
            stamp = _stamp(directory)
            found.append(
                ModelCard(
                    id=name,
                    created=0 if stamp is None else stamp[0] // 10**9,
                    max_model_len=facts.max_tokens,
                    model_version=ModelVersion(fingerprint=facts.fingerprint.digest, step=facts.step),
                    fingerprint_parts=asdict(facts.fingerprint),
                    temperature=facts.temperature,
                    dtype=facts.dtype,
                )
            )
        return found

    async def _load(self, name: str, stamp: _Stamp | None) -> ServedCritic | None:
        try:
            critic = await asyncio.to_thread(self.open, self._directories[name])
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, all others go on
            told = error.message if isinstance(error, GadError) else type(error).__name__
            # A path on this machine is no client's business.
            self._refused[name] = (stamp, told.replace(str(self._directories[name]), "its directory"))
            _logger.error("the adapter %s is refused: %s", name, error)
            self._tell("refused")
            return None
        self._refused.pop(name, None)
        self._loaded[name] = _Loaded(critic, stamp or (0, 0))
        self._loaded.move_to_end(name)
        self._tell("loaded")
        while len(self._loaded) > self._max_loaded:
            self._loaded.popitem(last=False)
            self._tell("evicted")
        return critic

    def _make_shared(self, dtype: torch.dtype) -> SharedBackbone:
        if self._backbone is not None:
            module = load_backbone(resolve_model(self._backbone), dtype=dtype)
            cast("Any", module).to(self._device).eval()
            pack_linears(module)
            attend_by_rows(module)
            return SharedBackbone(module, dtype=dtype)
        if self._first is None:
            raise ModelError(
                "the critic is an adapter, and no backbone is named",
                hint="name the model that it was trained on with --backbone",
            )
        # Kept in any case: it takes no memory of its own, and its hooks are there from now on.
        self._shared = _backbone_of(self._first)
        return self._shared

    def _tell(self, result: str) -> None:
        if self._watcher is not None:
            self._watcher.adapter_done(result=result)


def names_of(version: ModelVersion) -> tuple[str, str]:
    """By what a version may be asked for: its fingerprint, or the first 16 digits."""
    return version.fingerprint, version.fingerprint[:16]


def _backbone_of(critic: ServedCritic) -> SharedBackbone:
    """That of a whole critic, which goes on as before."""
    module: nn.Module = critic.model.backbone
    if isinstance(module, AdaptedBackbone):
        return module.shared
    if is_adapted(cast("Any", module)):
        raise ModelError(
            "the critic is a checkpoint with an adapter of its own, whose backbone cannot be shared",
            hint="name the model that it was trained on with --backbone",
        )
    return SharedBackbone(module, dtype=TORCH_DTYPES[critic.dtype])


def _stamp(directory: Path) -> _Stamp | None:
    """When an adapter was written; None if it is not there."""
    try:
        found = (directory / ADAPTER_META).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
