"""What the ranks of one group say to each other."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import numpy as np
import psutil
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage] - public, and in no __all__

T = TypeVar("T")


class Collective(Protocol):
    """Sums and gathers over the ranks of a group; every rank must make the same calls in the same order."""

    @property
    def rank(self) -> int:
        """This process's place in the group, from 0."""
        ...

    @property
    def size(self) -> int:
        """Number of processes in the group."""
        ...

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all ranks, in place."""
        ...

    def gather(self, array: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The vectors of all ranks, in rank order; their lengths may differ."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...


class LocalCollective:
    """A group of one."""

    rank = 0
    size = 1

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Nothing to add."""

    def gather(self, array: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The array itself."""
        return [array]

    def close(self) -> None:
        """Nothing to leave."""


class TorchCollective:
    """A group of processes over torch.distributed: gloo on CPU, nccl on GPUs."""

    def __init__(self, *, rank: int, size: int, address: str, timeout_s: float, device: torch.device) -> None:
        """Join the group; returns when all ranks are there.

        Args:
            rank: This process's place, from 0.
            size: Number of processes.
            address: ``tcp://host:port`` of rank 0.
            timeout_s: Deadline of joining and of every later call.
            device: Where the tensors live.
        """
        self._device = device
        timeout = timedelta(seconds=timeout_s)
        host, port = _host_and_port(address)
        _keep_to_interface(_interface_towards(host, port))
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=_meeting_place(host, port, is_host=rank == 0, size=size, timeout=timeout),
            rank=rank,
            world_size=size,
            timeout=timeout,
        )

    @property
    def rank(self) -> int:
        """This process's place in the group, from 0."""
        return dist.get_rank()

    @property
    def size(self) -> int:
        """Number of processes in the group."""
        return dist.get_world_size()

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Sum each tensor over all ranks, in place."""
        # One message for many small tensors.
        for bucket in _buckets(tensors, max_elements=32 * 2**20):
            # nccl knows nothing of the CPU, where figures are summed up.
            flat = torch.cat([t.reshape(-1) for t in bucket]).to(self._device)
            dist.all_reduce(flat)
            offset = 0
            for tensor in bucket:
                tensor.copy_(flat[offset : offset + tensor.numel()].view_as(tensor))
                offset += tensor.numel()

    def gather(self, array: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The vectors of all ranks, in rank order."""
        lengths = [torch.zeros(1, dtype=torch.int64, device=self._device) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(array)], device=self._device))
        longest = max(1, max(int(n) for n in lengths))
        padded = torch.zeros(longest, device=self._device)
        padded[: len(array)] = torch.from_numpy(array).to(self._device)
        received = [torch.zeros(longest, device=self._device) for _ in range(self.size)]
        dist.all_gather(received, padded)
        return [part[: int(n)].cpu().numpy() for part, n in zip(received, lengths, strict=True)]

    def close(self) -> None:
        """Leave the group."""
        dist.destroy_process_group()


def reserve_address(host: str) -> str:
    """``tcp://host:port`` at which the ranks of a group can meet this process, on that interface alone."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        port = listener.getsockname()[1]
    return f"tcp://{f'[{host}]' if ':' in host else host}:{port}"


def _host_and_port(address: str) -> tuple[str, int]:
    parts = urlsplit(address)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def _meeting_place(host: str, port: int, *, is_host: bool, size: int, timeout: timedelta) -> TCPStore:
    """Where the ranks tell one another their addresses. It listens on ``host`` alone: torch's own socket would on all."""
    if not is_host:
        return TCPStore(host, port, size, is_master=False, timeout=timeout)
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    with socket.create_server((host, port), family=family) as listener:
        # The store owns the descriptor that it is given, and closes it.
        return TCPStore(
            host, port, size, is_master=True, timeout=timeout, master_listen_fd=os.dup(listener.fileno())
        )


def _interface_towards(host: str, port: int) -> str | None:
    """Name of the network interface by which this process reaches a host; None where that is not known."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # sends nothing
            own = probe.getsockname()[0]
    except OSError:
        return None
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address.partition("%")[0] == own for one in addresses):
            return name
    return None


def _keep_to_interface(name: str | None) -> None:
    """Have gloo and nccl listen on one interface, unless the environment says on which."""
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")


def _buckets(tensors: Iterable[Tensor], *, max_elements: int) -> Iterable[list[Tensor]]:
    bucket: list[Tensor] = []
    elements = 0
    for tensor in tensors:
        if bucket and elements + tensor.numel() > max_elements:
            yield bucket
            bucket, elements = [], 0
        bucket.append(tensor)
        elements += tensor.numel()
    if bucket:
        yield bucket


def own_share(items: Sequence[T], collective: Collective) -> list[T]:
    """The items that this rank works on: every ``size``-th from its rank on."""
    return list(items[collective.rank :: collective.size])


def shared_out(
    items: Sequence[T], collective: Collective, compute: Callable[[Sequence[T]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """One number for every item, in their order: each rank computes those of its share, and all get all."""
    values = np.zeros(len(items), dtype=np.float32)
    for rank, part in enumerate(collective.gather(compute(own_share(items, collective)))):
        values[rank :: collective.size] = part
    return values
