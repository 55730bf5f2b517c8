"""Torch tensors as numpy arrays and back, without a copy; bfloat16 included."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """A numpy array over the same bytes; bfloat16, which numpy lacks, as uint16."""
    tensor = tensor.detach().contiguous().cpu()
    return tensor.view(torch.uint16).numpy() if tensor.dtype is torch.bfloat16 else tensor.numpy()


def from_numpy(array: NDArray[Any], *, dtype: str) -> Tensor:
    """The inverse of :func:`to_numpy`."""
    with warnings.catch_warnings():
        # Arrays out of an object store are read-only, which torch warns of; nobody writes to these.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor
