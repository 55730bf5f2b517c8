"""The critic's fingerprint: an answer to "is this the same critic?"."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from gad_ray.models.chat import ChatFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """SHA-256 digests (hex) of everything that a score depends on, part by part."""

    weights: str
    head: str
    template: str
    tokenizer: str
    pooling: str
    dtype: str

    @property
    def digest(self) -> str:
        """SHA-256 over all parts, as hex."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors, whatever their order."""

    def one(name: str) -> bytes:
        tensor = tensors[name].detach().contiguous().cpu()
        hasher = hashlib.sha256(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hasher.update(tensor.view(-1).view(torch.uint8).numpy().data)
        return hasher.digest()

    # hashlib releases the interpreter lock: tensors are hashed side by side.
    with ThreadPoolExecutor(max_workers=max(1, torch.get_num_threads())) as pool:
        digests = pool.map(one, sorted(tensors))
        return hashlib.sha256(b"".join(digests)).hexdigest()


def hash_text(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def hash_tokenizer(chat: ChatFormat) -> str:
    """SHA-256 of the tokenizer's full definition: vocabulary, merges, normaliser, special tokens."""
    return hash_text(chat.tokenizer.backend_tokenizer.to_str())
