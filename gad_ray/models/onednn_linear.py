"""Linear layers whose weights lie as the CPU's kernels read them, for models that only compute.

On x86 a product with weights that oneDNN has laid out beforehand is done sooner than PyTorch's own in float32; how much
that makes of a critic's forward pass is in what ``gad-ray bench serve throughput`` measures. PyTorch uses the same two
operations where its compiler freezes a model. Calling them directly compiles nothing when a new critic comes.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn

_logger = logging.getLogger(__name__)

_OPS: Any = torch.ops.mkldnn

PACKED_ENV = {"LRU_CACHE_CAPACITY": "16", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}
"""For processes that compute with packed layers. PyTorch and oneDNN each keep what they made for every shape of a product,
1,024 of them, about a MiB for those of one forward pass. Batches have ever new shapes, so that a process would grow by
hundreds of MiB; to make one anew is nothing beside the product."""


class PackedLinear(nn.Module):
    """A linear layer that cannot be trained. Its weight is held once, in the layout of the kernels.

    Args:
        linear: The layer that it stands for, on the CPU.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        # No buffer: what moves or casts a module's tensors cannot do so with this layout.
        self._packed: Tensor = _OPS._reorder_linear_weight(linear.weight.detach())

    @property
    def weight(self) -> Tensor:
        """[out, in] a copy of the weight, in the ordinary layout."""
        return self._packed.to_dense()

    def forward(self, given: Tensor) -> Tensor:
        """As that of ``nn.Linear``, up to rounding."""
        return _OPS._linear_pointwise(given, self._packed, self.bias, "none", [], "")

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self.weight


def is_linear(part: nn.Module) -> bool:
    """Whether a module is a linear layer, packed or not."""
    return isinstance(part, nn.Linear | PackedLinear)


def pack_linears(module: nn.Module) -> int:
    """Replace the linear layers inside a module on the CPU, where its machine and PyTorch can do so.

    Its state dict keeps its names and values. It cannot be trained, moved or cast any more.

    Args:
        module: On another device than the CPU it is left as it is.

    Returns:
        Number of layers that were replaced.
    """
    replaced = 0
    for parent in list(module.modules()):
        for name, part in list(parent.named_children()):
            if type(part) is nn.Linear and part.weight.device.type == "cpu" and _can_pack(part.weight.dtype):
                setattr(parent, name, PackedLinear(part))
                replaced += 1
    return replaced


@cache
def _can_pack(dtype: torch.dtype) -> bool:
    """Whether the operations are there and compute what they should: they are no part of PyTorch's public interface."""
    given = torch.arange(-24, 24).reshape(3, 16).to(dtype) / 16
    plain = nn.Linear(16, 8, dtype=dtype, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        plain.weight.copy_(torch.arange(128).reshape(8, 16) / 64 - 1)
        cast("Tensor", plain.bias).fill_(0.5)
        try:
            packed = PackedLinear(plain)
            same = torch.equal(packed.weight, plain.weight)
            close = torch.allclose(packed(given).float(), plain(given).float(), rtol=0.02, atol=0.02)
        except (AttributeError, RuntimeError, TypeError) as error:
            _logger.info("linear layers of %s are not packed: %r", dtype, error)
            return False
    if not (same and close):
        _logger.warning(
            "linear layers of %s are not packed: this machine computes something else with them", dtype
        )
    return same and close
