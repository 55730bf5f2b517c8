"""Rows end to end in one forward pass, each attending to itself alone: nothing is padded, and no mask is needed.

transformers keeps rows apart by a mask of all tokens against all, which on a CPU costs more than padding does. The
attention here is its own, called once for every row.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_NAME = "each_row_alone"

_here = threading.local()


@contextmanager
def rows_apart(lengths: Sequence[int]) -> Generator[None]:
    """Rows of these lengths follow upon each other in what this thread computes; heeded by :func:`attend_by_rows`."""
    _here.lengths = list(lengths)
    try:
        yield
    finally:
        _here.lengths = None


def attend_by_rows(backbone: nn.Module) -> bool:
    """Make a backbone keep rows apart where :func:`rows_apart` names them; else it computes as before.

    Args:
        backbone: A model of transformers.

    Returns:
        Whether it can: all its layers attend to every earlier token, by the attention of PyTorch.
    """
    model: Any = backbone
    config: Any = getattr(model, "config", None)
    if attends_by_rows(backbone):
        return True
    if getattr(config, "_attn_implementation", None) != "sdpa" or not _sees_everything(config):
        return False
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, _mask)
    model.set_attn_implementation(_NAME)
    return attends_by_rows(backbone)


def attends_by_rows(backbone: nn.Module) -> bool:
    """Whether :func:`attend_by_rows` has been told of it."""
    return getattr(getattr(backbone, "config", None), "_attn_implementation", None) == _NAME


def attend_as_before(backbone: nn.Module) -> None:
    """Take back what :func:`attend_by_rows` did."""
    model: Any = backbone
    model.set_attn_implementation("sdpa")


def _sees_everything(config: Any) -> bool:
    """Whether no layer has a window, whose mask rows that are kept apart here would lack."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return set(kinds) <= {"full_attention"}
    return not getattr(config, "sliding_window", None) and not getattr(config, "attention_chunk_size", None)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """As transformers asks an attention: [1, heads, tokens, size] → [1, tokens, heads, size]."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    lengths: list[int] | None = getattr(_here, "lengths", None)
    if lengths is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    rows = zip(
        query.split(lengths, dim=2), key.split(lengths, dim=2), value.split(lengths, dim=2), strict=True
    )
    found = [sdpa_attention_forward(module, q, k, v, None, **options)[0] for q, k, v in rows]
    return torch.cat(found, dim=1), None


def _mask(*arguments: Any, **options: Any) -> Tensor | None:
    from transformers.masking_utils import sdpa_mask

    return None if getattr(_here, "lengths", None) is not None else sdpa_mask(*arguments, **options)
