"""Digests of the parts of a critic's fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from gad_ray.models.chat import ChatFormat


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
