"""A critic on its way from one process to another: all that an exported critic holds, without a file between them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gad_ray.batch import Fingerprint
from gad_ray.errors import ModelError
from gad_ray.models.architecture import hidden_size_of
from gad_ray.models.arrays import from_numpy, to_numpy
from gad_ray.models.chat import load_chat_format
from gad_ray.models.critic import CriticModel, ValueHead
from gad_ray.models.load import TORCH_DTYPES, empty_backbone, plain_model
from gad_ray.models.pooling import read_pooling


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticState:
    """A critic as it crosses the object store.

    Attributes:
        step: Optimiser steps that it has taken.
        temperature: τ of its loss, for probabilities of a comparison.
        updates: What a blended pooling depends on.
        max_tokens: Longest prompt plus response.
        dtype: Type of the backbone's weights.
        pooling: The pooling's settings.
        frame: Name → content of the small files around the weights: the model's config, tokenizer, template.
        weights: Plain Hugging Face name → array, adapters merged; bfloat16, which numpy lacks, as uint16.
        head: The same of the value head, in float32.
        fingerprint: Of the critic that was taken; whoever builds it again checks it.
    """

    step: int
    temperature: float
    updates: int
    max_tokens: int
    dtype: str
    pooling: Mapping[str, Any]
    frame: Mapping[str, bytes]
    weights: Mapping[str, NDArray[Any]]
    head: Mapping[str, NDArray[Any]]
    fingerprint: Fingerprint

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(array.nbytes for part in (self.weights, self.head) for array in part.values())


def frame_of(model: CriticModel) -> dict[str, bytes]:
    """The files around a critic's weights. They stay the same while it learns."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        plain_model(cast("Any", model.backbone)).config.save_pretrained(place)
        model.encoder.chat.save(directory)
        return {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file()}


def state_of(
    model: CriticModel,
    *,
    step: int,
    temperature: float,
    frame: Mapping[str, bytes],
    weights: Mapping[str, Tensor] | None = None,
) -> CriticState:
    """A critic's state; its arrays share memory with the live weights wherever they can.

    Args:
        model: The critic.
        step: Optimiser steps that it has taken.
        temperature: τ of its loss.
        frame: What :func:`frame_of` gives.
        weights: The backbone's, as ``model.state()`` gives them, from whoever holds them whole; its own when None.

    Raises:
        ModelError: If a weight is not finite: such a critic is good for nobody.
    """
    model.check_finite()
    weights = model.state() if weights is None else weights
    return CriticState(
        step=step,
        temperature=temperature,
        updates=model.updates,
        max_tokens=model.encoder.max_tokens,
        dtype=model.dtype,
        pooling=model.pooling.model_dump(mode="json"),
        frame=frame,
        weights={name: to_numpy(tensor) for name, tensor in weights.items()},
        head={name: to_numpy(tensor) for name, tensor in model.head.state_dict().items()},
        fingerprint=model.fingerprint(weights=weights),
    )


def critic_of(state: CriticState) -> CriticModel:
    """The critic that a state was taken of, with memory of its own.

    Raises:
        ModelError: If it cannot be built, or is not the one that its fingerprint names.
    """
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        for name, content in state.frame.items():
            (directory / name).write_bytes(content)
        backbone = empty_backbone(directory, dtype=TORCH_DTYPES[state.dtype])
        chat = load_chat_format(directory)
    head = ValueHead(hidden_size_of(backbone), seed=0)
    try:
        backbone.load_state_dict(_tensors(state.weights), strict=True, assign=True)
        head.load_state_dict(_tensors(state.head))
    except RuntimeError as error:
        raise _not_whole(str(error)) from error
    critic = CriticModel(
        backbone,
        head,
        chat=chat,
        pooling=read_pooling(state.pooling),
        max_tokens=state.max_tokens,
        dtype=state.dtype,
        updates=state.updates,
    )
    found = asdict(critic.fingerprint())
    differing = [part for part, digest in asdict(state.fingerprint).items() if found[part] != digest]
    if differing:
        raise _not_whole(f"its {' and '.join(differing)} are not those it was published with")
    return critic.eval()


def _tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Copies: the arrays lie in an object store, which frees them."""
    return {
        name: from_numpy(array, dtype="bfloat16" if array.dtype == np.uint16 else "float32").clone()
        for name, array in arrays.items()
    }


def _not_whole(reason: str) -> ModelError:
    return ModelError(
        f"the published critic is not whole: {reason}",
        hint="wait for the run's next one; nothing else is lost",
    )
