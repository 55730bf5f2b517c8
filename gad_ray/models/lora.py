"""One backbone under many low-rank adapters: its weights are in memory once, and every adapter leaves them as they are."""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gad_ray.errors import ModelError
from gad_ray.models.fingerprint import hash_tensors
from gad_ray.models.load import merged_state_dict, plain_model
from gad_ray.models.onednn_linear import is_linear

if TYPE_CHECKING:
    from peft import PeftModel


LORA_DOWN, LORA_UP = ".lora_A", ".lora_B"
"""What a layer's name ends in for the two tensors of its adapter, where adapters travel."""


class LoraWeights(nn.Module):
    """What one adapter adds to layers' outputs: scale · B A x.

    Args:
        down: Layer → A, [rank, in] float32.
        up: Layer → B, [out, rank] float32, for the same layers.
        scale: Of all of them.
    """

    def __init__(self, down: Mapping[str, Tensor], up: Mapping[str, Tensor], *, scale: float) -> None:
        super().__init__()
        self.scale = scale
        # Names of parameters must have no dots.
        self._places = {name: place for place, name in enumerate(sorted(down))}
        self.down = nn.ParameterList([nn.Parameter(down[name], requires_grad=False) for name in self._places])
        self.up = nn.ParameterList([nn.Parameter(up[name], requires_grad=False) for name in self._places])

    @classmethod
    def of(cls, model: PeftModel) -> Self:
        """The adapters of a model in training; they share its memory."""
        from peft.tuners.lora import LoraLayer

        parts = plain_model(model).named_modules()
        adapted: dict[str, Any] = {name: part for name, part in parts if isinstance(part, LoraLayer)}
        down: dict[str, Tensor] = {}
        up: dict[str, Tensor] = {}
        for name, layer in adapted.items():
            a, b = (pair["default"].weight.detach() for pair in (layer.lora_A, layer.lora_B))
            # A layer whose weight lies the other way round gets its change that way too.
            down[name], up[name] = (b.T, a.T) if layer.fan_in_fan_out else (a, b)
        (scale,) = {float(layer.scaling["default"]) for layer in adapted.values()}
        return cls(down, up, scale=scale)

    @property
    def layers(self) -> list[str]:
        """Names of the layers that it changes."""
        return list(self._places)

    def tensors(self) -> dict[str, Tensor]:
        """Both tensors of every layer, by the layer's name and their own."""
        ends = ((LORA_DOWN, self.down), (LORA_UP, self.up))
        return {name + end: part[place] for name, place in self._places.items() for end, part in ends}

    def change(self, layer: str, given: Tensor) -> Tensor | None:
        """What it adds to a layer's output; None for a layer that it leaves alone.

        The same operations in the same order as peft's, so that scores are those of training to the last bit.
        """
        place = self._places.get(layer)
        if place is None:
            return None
        down, up = self.down[place], self.up[place]
        return F.linear(F.linear(given.to(down.dtype), down), up) * self.scale

    def shape(self, layer: str) -> tuple[int, int]:
        """Shape of the weight that one of its layers must have."""
        place = self._places[layer]
        return int(self.up[place].shape[0]), int(self.down[place].shape[1])

    def merged(self, layer: str, weight: Tensor) -> Tensor:
        """A layer's weight with the adapter added in, in float32; or as it is."""
        place = self._places.get(layer)
        if place is None:
            return weight
        return weight.to(torch.float32) + (self.up[place] @ self.down[place]) * self.scale


class SharedBackbone:
    """A backbone that computes with one adapter or another, or with none: each thread with its own.

    Args:
        module: The backbone, without adapters of its own. Whoever else uses it sees no change.
        dtype: Type of its weights.
    """

    def __init__(self, module: nn.Module, *, dtype: torch.dtype) -> None:
        self.module = module
        self._dtype = dtype
        self._active = threading.local()
        self.weights: str = hash_tensors(self.state())
        for name, part in module.named_modules():
            if is_linear(part):
                part.register_forward_hook(partial(self._add, name))

    def state(self) -> dict[str, Tensor]:
        """Its weights, without any adapter."""
        module: Any = self.module
        return merged_state_dict(module, dtype=self._dtype)

    def check(self, weights: LoraWeights) -> None:
        """Refuse an adapter that was made for other layers.

        Raises:
            ModelError: Naming the layer.
        """
        linear: dict[str, Any] = {n: p for n, p in self.module.named_modules() if is_linear(p)}
        for name in weights.layers:
            wanted = weights.shape(name)
            found = (linear[name].out_features, linear[name].in_features) if name in linear else None
            if found != wanted:
                told = "is not there" if found is None else f"has the shape {found}"
                raise ModelError(
                    f"its adapter is for a layer {name} of shape {wanted}, which in this backbone {told}",
                    hint="serve it on the backbone that it was trained on",
                )

    @contextmanager
    def using(self, weights: LoraWeights) -> Generator[None]:
        """Compute with an adapter in this thread."""
        before = getattr(self._active, "weights", None)
        self._active.weights = weights
        try:
            yield
        finally:
            self._active.weights = before

    def _add(self, name: str, _layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        weights: LoraWeights | None = getattr(self._active, "weights", None)
        change = None if weights is None else weights.change(name, given[0])
        return None if change is None else (output + change).to(output.dtype)


class AdaptedBackbone(nn.Module):
    """A shared backbone with one adapter: to whoever calls it, a backbone like any other.

    Its parameters are the adapter's; the backbone's belong to all.

    Args:
        shared: The backbone.
        weights: The adapter.
    """

    def __init__(self, shared: SharedBackbone, weights: LoraWeights) -> None:
        super().__init__()
        self.shared = shared
        self.weights = weights

    @property
    def config(self) -> Any:
        """The backbone's."""
        return cast("Any", self.shared.module).config

    def set_attn_implementation(self, name: str) -> None:
        """As the backbone's: it is that of all who share it."""
        cast("Any", self.shared.module).set_attn_implementation(name)

    def forward(self, **inputs: Any) -> Any:
        """As the backbone's."""
        with self.shared.using(self.weights):
            return self.shared.module(**inputs)

    def state(self) -> dict[str, Tensor]:
        """The backbone's weights with the adapter added in."""
        return {
            name: self.weights.merged(name.removesuffix(".weight"), tensor).to(tensor.dtype)
            for name, tensor in self.shared.state().items()
        }
