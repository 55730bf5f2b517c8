"""A LoRA critic without its backbone: peft's adapter, the value head, and what its answers say of it.

adapter.json               what it is: step, temperature, pooling, fingerprints, and which backbone it needs
adapter_config.json        as peft writes it
adapter_model.safetensors  the same
head.safetensors           the value head
tokenizer and template     as in an exported critic
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gad_ray.batch import Fingerprint
from gad_ray.core.pooling import PoolingSettings
from gad_ray.errors import GadError, ModelError
from gad_ray.models.architecture import hidden_size_of
from gad_ray.models.chat import load_chat_format
from gad_ray.models.critic import CriticModel, ValueHead
from gad_ray.models.fingerprint import hash_tensors
from gad_ray.models.load import TORCH_DTYPES, merged_state_dict
from gad_ray.models.lora import AdaptedBackbone, LoraWeights, SharedBackbone
from gad_ray.models.pooling import read_pooling

ADAPTER_FOLDER = "adapter"
"""Below the export of a critic that was trained with LoRA."""

ADAPTER_META = "adapter.json"
_FORMAT = 1
_HEAD = "head.safetensors"
_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_PLAIN: dict[str, object] = {
    "use_dora": False,
    "use_rslora": False,
    "bias": "none",
    "rank_pattern": {},
    "alpha_pattern": {},
    "modules_to_save": None,
    "fan_in_fan_out": False,
}
"""What an adapter must say of itself, where it says anything: other kinds compute in other ways."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterFacts:
    """What an adapter says of itself.

    Attributes:
        step: Optimiser steps that the critic had taken.
        temperature: τ of its loss.
        pooling: How the tokens' values become a score.
        updates: Steps that a blended pooling depends on.
        max_tokens: Longest prompt plus response.
        dtype: Type of its backbone's weights.
        fingerprint: Of the critic with adapter and backbone: that of the same critic in training, and exported whole.
        backbone: SHA-256 of the weights of the backbone that it needs.
        adapter: SHA-256 of its own weights.
    """

    step: int
    temperature: float
    pooling: PoolingSettings
    updates: int
    max_tokens: int
    dtype: str
    fingerprint: Fingerprint
    backbone: str
    adapter: str


class AdapterCritic(CriticModel):
    """A critic on a backbone that others share.

    The digest of its merged weights is the recorded one: loading has verified what they are made of, to the bit, and to
    merge them anew could round in another way than on the machine that trained it.
    """

    def __init__(
        self, backbone: AdaptedBackbone, head: ValueHead, *, facts: AdapterFacts, **settings: Any
    ) -> None:
        super().__init__(
            backbone,
            head,
            pooling=facts.pooling,
            max_tokens=facts.max_tokens,
            dtype=facts.dtype,
            updates=facts.updates,
            **settings,
        )
        self._adapted = backbone
        self._facts = facts

    def state(self) -> dict[str, Tensor]:
        """As of a critic of its own."""
        return self._adapted.state()

    def hash_weights(self) -> str:
        """As recorded when backbone and adapter were merged."""
        return self._facts.fingerprint.weights


def is_adapter(directory: Path) -> bool:
    """Whether a directory holds an adapter and not a whole critic."""
    return (directory / ADAPTER_META).is_file()


def adapter_in(directory: Path) -> Path:
    """The adapter in a directory: its own, or the one below the export of a LoRA critic."""
    below = directory / ADAPTER_FOLDER
    return below if not is_adapter(directory) and is_adapter(below) else directory


def save_adapter(critic: CriticModel, directory: Path, meta: Mapping[str, Any]) -> None:
    """Write the adapter of a critic that is trained with LoRA.

    Args:
        critic: The critic.
        directory: Where to; it is made.
        meta: What the whole critic's export says of it.

    Raises:
        OSError: If it cannot be written.
    """
    wrapped: Any = critic.backbone
    directory.mkdir()
    # A path on the machine that trained it is of no use to who reads it.
    wrapped.peft_config["default"].base_model_name_or_path = ""
    wrapped.save_pretrained(str(directory))
    (directory / "README.md").unlink(missing_ok=True)
    critic.encoder.chat.save(directory)
    save_file({k: v.detach().cpu() for k, v in critic.head.state_dict().items()}, directory / _HEAD)
    backbone = merged_state_dict(wrapped, dtype=TORCH_DTYPES[critic.dtype], adapters=False)
    told = {
        **meta,
        "format": _FORMAT,
        "backbone": hash_tensors(backbone),
        "adapter": hash_tensors(load_file(directory / _WEIGHTS)),
    }
    (directory / ADAPTER_META).write_text(json.dumps(told, indent=2), encoding="utf-8")


def read_adapter(directory: Path) -> AdapterFacts:
    """What an adapter says of itself; :func:`load_adapter` checks it.

    Raises:
        ModelError: If the directory holds no adapter.
    """
    meta = _read_json(directory / ADAPTER_META)
    try:
        if meta["format"] != _FORMAT or meta["dtype"] not in TORCH_DTYPES:
            raise ValueError("another format")
        recorded = meta["fingerprint"]
        return AdapterFacts(
            step=int(meta["step"]),
            temperature=float(meta["temperature"]),
            pooling=read_pooling(meta["pooling"]),
            updates=int(meta["updates"]),
            max_tokens=int(meta["max_tokens"]),
            dtype=str(meta["dtype"]),
            fingerprint=Fingerprint(**{part.name: recorded[part.name] for part in fields(Fingerprint)}),
            backbone=str(meta["backbone"]),
            adapter=str(meta["adapter"]),
        )
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise _damaged(directory, f"{ADAPTER_META} cannot be used ({error!r})") from None


def load_adapter(directory: Path, shared: SharedBackbone) -> tuple[AdapterCritic, AdapterFacts]:
    """Put an adapter on a backbone, and check that both are what they were when it was written.

    Raises:
        ModelError: If it is damaged, of another kind, or was trained on another backbone.
    """
    facts = read_adapter(directory)
    if facts.backbone != shared.weights:
        raise ModelError(
            f"it was trained on another backbone, {facts.backbone[:16]}; here is {shared.weights[:16]}",
            where=str(directory),
            hint="serve it on the backbone that it was trained on",
        )
    try:
        tensors, head_tensors = load_file(directory / _WEIGHTS), load_file(directory / _HEAD)
        head = ValueHead(hidden_size_of(shared.module), seed=0)
        head.load_state_dict(head_tensors)
        chat = load_chat_format(directory)
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise _damaged(directory, f"a file cannot be read ({error})") from None
    except GadError as error:
        raise _damaged(directory, error.message) from None
    if hash_tensors(tensors) != facts.adapter:
        raise _damaged(directory, "its weights are not those it was exported with")
    weights = _weights(directory, tensors)
    shared.check(weights)
    critic = AdapterCritic(AdaptedBackbone(shared, weights), head, facts=facts, chat=chat)
    differing = critic.fingerprint().differing(facts.fingerprint)
    if differing:
        raise _damaged(directory, f"its {' and '.join(differing)} are not those it was exported with")
    critic.eval()
    return critic, facts


def _weights(directory: Path, tensors: Mapping[str, Tensor]) -> LoraWeights:
    config = _read_json(directory / _CONFIG)
    other = [key for key, wanted in _PLAIN.items() if config.get(key, wanted) not in (wanted, None)]
    if other:
        raise ModelError(
            f"its adapter has {other[0]} = {config[other[0]]!r}, which is not computed here",
            where=str(directory),
            hint="train it as critic.model.lora does",
        )
    try:
        down = {_layer(key, _DOWN): value for key, value in tensors.items() if key.endswith(_DOWN)}
        up = {_layer(key, _UP): value for key, value in tensors.items() if key.endswith(_UP)}
        scale = float(config["lora_alpha"]) / float(config["r"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise _damaged(directory, f"{_CONFIG} cannot be used ({error!r})") from None
    fits = (
        down.keys() == up.keys()
        and len(down) + len(up) == len(tensors)
        and all(
            down[name].dim() == up[name].dim() == 2 and down[name].shape[0] == up[name].shape[1]
            for name in down
        )
    )
    if not fits or not down:
        raise _damaged(directory, "its weights are no pairs of low rank")
    return LoraWeights(down, up, scale=scale)


def _layer(key: str, suffix: str) -> str:
    return key.removeprefix(_PREFIX).removesuffix(suffix)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path.parent, f"{path.name} cannot be read ({error})") from None
    if not isinstance(found, dict):
        raise _damaged(path.parent, f"{path.name} is no object")
    return cast("dict[str, Any]", found)


def _damaged(directory: Path, what: str) -> ModelError:
    return ModelError(
        f"is no whole adapter: {what}",
        where=str(directory),
        hint="export the critic again, or take an unchanged copy",
    )
