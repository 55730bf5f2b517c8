"""Rows end to end in one forward pass, each attending to itself alone: nothing is padded, and no mask is needed.

transformers keeps rows apart by a mask of all tokens against all, which on a CPU costs more than padding does. The
attention here is its own, called once for every row.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gad_ray.models.pairs import TokenRow

_logger = logging.getLogger(__name__)

_NAME = "each_row_alone"

CANNOT = (AttributeError, TypeError, ValueError, RuntimeError, NotImplementedError)
"""What backbones raise when they are asked for something that they were not made for."""

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


@torch.no_grad()
def keeps_rows_apart(
    end_to_end: Callable[[Sequence[TokenRow]], Tensor],
    padded: Callable[[Sequence[TokenRow]], Tensor],
    *,
    words: int,
    tolerance: float,
) -> bool:
    """Whether rows end to end get the values that they get alone: it is tried, and the log says why not.

    A row must not change by a bit when the one before it does, whatever the precision.

    Args:
        end_to_end: Rows → [rows, tokens] values, all rows in one.
        padded: The same by rows of their own.
        words: Size of the vocabulary.
        tolerance: What the two may differ by, as a share of the largest value that is above 1.
    """

    def row(first: int, length: int) -> TokenRow:
        return TokenRow(ids=(np.arange(first, first + length) % words).astype(np.int32), start=0)

    before, other, last = row(1, 7), row(11, 7), row(5, 4)
    try:
        found, again = end_to_end([before, last]), end_to_end([other, last])
    except CANNOT as error:
        _logger.warning("rows are padded: this backbone does not take them end to end: %r", error)
        return False
    alone = padded([before])[0], padded([last])[0]
    gap = max(float((found[i, : len(values)] - values).abs().max()) for i, values in enumerate(alone))
    scale = max(1.0, *(float(values.abs().max()) for values in alone))
    if not torch.equal(found[1, :4], again[1, :4]) or not gap <= tolerance * scale:
        _logger.warning("rows are padded: end to end, this backbone mixes them (%.2g apart)", gap)
        return False
    return True


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
