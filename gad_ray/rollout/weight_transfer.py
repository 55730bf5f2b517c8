"""Weights into a running vLLM through its four-phase transfer interface, out of memory that is shared.

The engine that vLLM is told of here takes no bytes with its calls: in one process it is given views, in a process of its own
it maps a file by its name. vLLM is imported only once it asks for one of these classes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

BACKEND = "gad_ray"
"""Name under which vLLM knows the engine."""

WORKER_EXTENSION = f"{__name__}.WorkerExtension"
"""What a vLLM worker asks for before it makes its engine, which is registered then: in every process, spawned ones too."""

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - tempfile makes the file


@dataclass(frozen=True, slots=True)
class MappedWeights:
    """Tensors that lie one behind the other in a file of shared memory.

    Attributes:
        path: The file.
        dtype: Type of all tensors, as torch names it.
        layout: Name and shape of each.
    """

    path: str
    dtype: str
    layout: Sequence[tuple[str, Sequence[int]]]

    def views(self) -> list[tuple[str, Tensor]]:
        """The tensors by name, none of them copied."""
        sizes = [torch.Size(shape).numel() for _, shape in self.layout]
        memory = torch.from_file(self.path, shared=True, size=sum(sizes), dtype=getattr(torch, self.dtype))
        parts = zip(self.layout, memory.split(sizes), strict=True)
        return [(name, part.view(*shape)) for (name, shape), part in parts]


@contextmanager
def in_shared_memory(weights: Iterable[tuple[str, Tensor]]) -> Generator[MappedWeights]:
    """Copy tensors, once, to where other processes can map them; the memory is free again at the end.

    Args:
        weights: Name and tensor, all of one type.

    Raises:
        OSError: If there is no room.
    """
    given = list(weights)
    with tempfile.NamedTemporaryFile(prefix="gad-ray-weights-", dir=_SHARED_MEMORY) as file:
        # Writing to mapped memory without room would end the process.
        os.posix_fallocate(file.fileno(), 0, sum(tensor.nbytes for _, tensor in given))
        dtype = str(given[0][1].dtype).removeprefix("torch.")
        mapped = MappedWeights(file.name, dtype, [(name, tuple(tensor.shape)) for name, tensor in given])
        for (_, place), (_, tensor) in zip(mapped.views(), given, strict=True):
            place.copy_(tensor)
        yield mapped


def __getattr__(name: str) -> Any:
    if name != WORKER_EXTENSION.rpartition(".")[2]:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _register()
    return type(name, (), {"__doc__": "Adds nothing to a worker: it is for what asking for it does."})


@cache
def _register() -> None:
    from vllm.distributed.weight_transfer import WeightTransferEngine, WeightTransferEngineFactory
    from vllm.distributed.weight_transfer.base import WeightTransferInitInfo, WeightTransferUpdateInfo
    from vllm.model_executor.layers.vocab_parallel_embedding import (
        ParallelLMHead,
        UnquantizedEmbeddingMethod,
        VocabParallelEmbedding,
    )
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

    @dataclass
    class InitInfo(WeightTransferInitInfo):
        """There is nothing to agree on."""

    @dataclass
    class UpdateInfo(WeightTransferUpdateInfo):
        """Weights of an update: as they are, or by the fields of :class:`MappedWeights`."""

        views: Iterable[tuple[str, Tensor]] = ()
        mapped: dict[str, Any] | None = None

    class SharedMemoryEngine(WeightTransferEngine[InitInfo, UpdateInfo]):
        """Loads weights under their Hugging Face names from memory that others have filled."""

        init_info_cls = InitInfo
        update_info_cls = UpdateInfo

        def init_transfer_engine(self, init_info: InitInfo) -> None:
            del init_info

        def start_weight_update(self) -> None:
            # A layer that was packed for the kernels is made anew as soon as all of it is there. Embeddings and norms are
            # written where they are.
            for layer in self.model.modules():
                method = getattr(layer, "quant_method", None)
                if method is not None and not isinstance(method, UnquantizedEmbeddingMethod):
                    initialize_layerwise_reload(layer)

        def receive_weights(self, update_info: UpdateInfo) -> None:
            mapped = update_info.mapped
            views = update_info.views if mapped is None else MappedWeights(**mapped).views()
            model: Any = self.model
            model.load_weights(views)

        def finish_weight_update(self) -> None:
            finalize_layerwise_reload(self.model, self.model_config)
            # On a CPU an output head has a packed copy of its weight besides; a tied one may be the embedding itself.
            kept = [part for part in self.model.modules() if isinstance(part, VocabParallelEmbedding)]
            for part in [head for head in kept if isinstance(head, ParallelLMHead)] or kept:
                part.quant_method.process_weights_after_loading(part)

        def shutdown(self) -> None:
            """It holds nothing."""

    WeightTransferEngineFactory.register_engine(BACKEND, SharedMemoryEngine)
