"""One forward pass over rows laid end to end, each attending to itself and to its prompt alone.

transformers keeps rows apart by a mask of all tokens against all, which grows with the square of the pass and costs more
than padding does. The attention here is its own: on a CPU one call for every row, on a GPU one for all of them, of flash
attention over rows of various lengths. See :mod:`gad_ray.core.shared_prompts` for the layout.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from gad_ray.core.packing import pad_rows, plan_group_batches, plan_micro_batches
from gad_ray.core.shared_prompts import (
    PackedRows,
    Row,
    Span,
    pack_with_shared_prompts,
    packed_tokens,
    plan_by_size,
    plan_packed_batches,
)

_logger = logging.getLogger(__name__)

_NAME = "each_row_alone"

_CANNOT = (AttributeError, TypeError, ValueError, RuntimeError, NotImplementedError)
"""What backbones raise when they are asked for something that they were not made for."""

_here = threading.local()


class Packing:
    """Rows laid end to end on a device, with what the attention needs to know of them.

    Args:
        rows: At least one.
        device: Where they are computed.

    Attributes:
        ids: [1, tokens] int64.
        positions: [1, tokens] int64, of each token in its row.
        spans: Who attends to whom.
        places: For each row, where each of its tokens stands.
    """

    def __init__(self, rows: Sequence[Row], *, device: torch.device) -> None:
        packed: PackedRows = pack_with_shared_prompts(rows)
        self.ids: Int[Tensor, "1 tokens"] = torch.from_numpy(packed.ids)[None].to(device)
        self.positions: Int[Tensor, "1 tokens"] = torch.from_numpy(packed.positions)[None].to(device)
        self.spans = packed.spans
        self.places = packed.places
        self._device = device
        self._masks: dict[tuple[int, int], Tensor] = {}
        self._varlen: _Varlen | None = None

    def mask(self, span: Span) -> Bool[Tensor, "1 1 own all"] | None:
        """What the tokens of a span may attend to: all of the prompt, and themselves causally. None without a prompt."""
        if span.prompt is None:
            return None
        shape = (span.end - span.begin, span.prompt[1] - span.prompt[0])
        if shape not in self._masks:
            own, prompt = shape
            mask = torch.ones(own, prompt + own, dtype=torch.bool, device=self._device)
            self._masks[shape] = mask.tril(prompt)[None, None]
        return self._masks[shape]

    @property
    def varlen(self) -> _Varlen:
        """The same for flash attention."""
        if self._varlen is None:
            self._varlen = _Varlen.of(self.spans, self._device)
        return self._varlen


@dataclass(frozen=True, slots=True)
class _Varlen:
    """Rows of various lengths, as flash attention takes them: a prompt's keys and values stand before each answer's.

    Attributes:
        keys: [keys] places of all rows' keys.
        query_ends, key_ends: [rows + 1] int32 where each row ends.
        most_queries, most_keys: Of one row.
    """

    keys: Tensor
    query_ends: Tensor
    key_ends: Tensor
    most_queries: int
    most_keys: int

    @classmethod
    def of(cls, spans: Sequence[Span], device: torch.device) -> _Varlen:
        keys = [
            np.concatenate([_range(span.prompt or (0, 0)), _range((span.begin, span.end))]) for span in spans
        ]
        queries = [span.end - span.begin for span in spans]

        def ends(sizes: Sequence[int]) -> Tensor:
            return torch.from_numpy(np.cumsum([0, *sizes]).astype(np.int32)).to(device)

        return cls(
            keys=torch.from_numpy(np.concatenate(keys)).to(device),
            query_ends=ends(queries),
            key_ends=ends([len(one) for one in keys]),
            most_queries=max(queries),
            most_keys=max(len(one) for one in keys),
        )


def _range(places: tuple[int, int]) -> NDArray[np.int64]:
    return np.arange(*places, dtype=np.int64)


def packed_states(backbone: Callable[..., Any], packing: Packing) -> Float[Tensor, "tokens hidden"]:
    """Last hidden state of every token of a packing.

    Args:
        backbone: A model of transformers that :func:`can_pack` has found fit.
        packing: The rows.
    """
    with _unmasked():
        # As an argument, which gradient checkpointing keeps for its second pass, in whatever thread that is.
        out = backbone(
            input_ids=packing.ids, position_ids=packing.positions, use_cache=False, packing=packing
        )
    return out.last_hidden_state[0]


def plan_passes(rows: Sequence[Row], *, max_tokens: int, packs: bool) -> list[NDArray[np.int64]]:
    """Split rows into forward passes within a budget of tokens: end to end where the model packs, else padded.

    Args:
        rows: The rows.
        max_tokens: Tokens of one pass that are computed: padding counts, a prompt that rows share counts once.
        packs: Whether the model takes rows end to end.

    Returns:
        Index arrays that together hold every row exactly once.
    """
    if packs:
        return plan_packed_batches(rows, max_tokens=max_tokens)
    return plan_micro_batches([len(row.ids) for row in rows], max_tokens=max_tokens)


def plan_group_passes(groups: Sequence[Sequence[Row]], *, max_tokens: int, packs: bool) -> list[list[int]]:
    """As :func:`plan_passes`, never dividing a group of rows.

    Returns:
        Lists of group indices that together hold every group exactly once.
    """
    if packs:
        return plan_by_size([packed_tokens(rows) for rows in groups], max_tokens=max_tokens)
    return plan_group_batches([[len(row.ids) for row in rows] for rows in groups], max_tokens=max_tokens)


@contextmanager
def _unmasked() -> Generator[None]:
    """No mask is made for what this thread computes."""
    _here.packed = True
    try:
        yield
    finally:
        _here.packed = False


def can_pack(backbone: nn.Module, *, words: int, tolerance: float) -> bool:
    """Make a backbone take rows end to end, if it can; the log says why not.

    All its layers must attend to every earlier token, by the attention of PyTorch. It is tried: rows must get the states
    that they get when they are padded, and not change by a bit when the rows before them do, whatever the precision.

    Args:
        backbone: A model of transformers, on the device where it will compute.
        words: Size of its vocabulary.
        tolerance: What a state may differ by, as a share of the largest value that is above 1.
    """
    if not attend_by_rows(backbone):
        _logger.warning("rows are padded: this backbone has an attention or a window of its own")
        return False
    why_not = _tried(backbone, words=words, tolerance=tolerance)
    if why_not is not None:
        _logger.warning("rows are padded: %s", why_not)
        attend_as_before(backbone)
    return why_not is None


def attend_by_rows(backbone: nn.Module) -> bool:
    """Make a backbone keep rows apart in :func:`packed_states`; else it computes as before.

    Returns:
        Whether it may be able to: no layer has a window, and its attention is PyTorch's.
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


@dataclass(frozen=True, slots=True)
class _Row:
    ids: NDArray[np.int32]
    start: int


@torch.no_grad()
def _tried(backbone: nn.Module, *, words: int, tolerance: float) -> str | None:
    """None if rows end to end, and answers under a shared prompt, get the states that they get alone; else why not."""
    device = next(backbone.parameters()).device
    model: Any = backbone

    def row(first: int, prompt: int, answer: int, other: int = 0) -> _Row:
        ids = np.concatenate([np.arange(first, first + prompt), np.arange(other, other + answer)])
        return _Row(ids=(ids % words).astype(np.int32), start=prompt)

    def states(rows: Sequence[_Row]) -> list[Tensor]:
        packing = Packing(rows, device=device)
        found = packed_states(model, packing).float()
        return [found[torch.from_numpy(places).to(device)] for places in packing.places]

    last = [row(5, 3, 4), row(5, 3, 6, other=2), row(9, 1, 1)]
    try:
        found, again = states([row(1, 3, 4), *last]), states([row(11, 3, 4), *last])
    except _CANNOT as error:
        return f"this backbone does not take them end to end: {error!r}"
    gap, scale = 0.0, 1.0
    for one, values in zip([row(1, 3, 4), *last], found, strict=True):
        alone = model(input_ids=pad_rows([one.ids], pad_id=0, device=device), use_cache=False)
        wanted = alone.last_hidden_state[0].float()
        gap = max(gap, float((values - wanted).abs().max()))
        scale = max(scale, float(wanted.abs().max()))
    same = all(torch.equal(one, other) for one, other in zip(found[1:], again[1:], strict=True))
    if not same or not gap <= tolerance * scale:
        return f"end to end, this backbone mixes them ({gap:.2g} apart)"
    return None


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
    packing: Packing | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """As transformers asks an attention: [1, heads, tokens, size] → [1, tokens, heads, size]."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if packing is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and _varlen_attention() is not None:
        return _attend_at_once(query, key, value, packing.varlen, scale=options.get("scaling")), None
    found: list[Tensor] = []
    for span in packing.spans:
        own, keys, values = (part[:, :, span.begin : span.end] for part in (query, key, value))
        if span.prompt is not None:
            first, behind = span.prompt
            keys = torch.cat([key[:, :, first:behind], keys], dim=2)
            values = torch.cat([value[:, :, first:behind], values], dim=2)
        found.append(sdpa_attention_forward(module, own, keys, values, packing.mask(span), **options)[0])
    return torch.cat(found, dim=1), None


def _attend_at_once(
    query: Tensor, key: Tensor, value: Tensor, rows: _Varlen, *, scale: float | None
) -> Tensor:
    """The same on a GPU, in one call."""
    attention = _varlen_attention()
    assert attention is not None
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    found = attention(
        q.contiguous(),
        k[rows.keys],
        v[rows.keys],
        rows.query_ends,
        rows.key_ends,
        rows.most_queries,
        rows.most_keys,
        scale=scale,
    )
    return found[None]


@cache
def _varlen_attention() -> Callable[..., Tensor] | None:
    """PyTorch's causal flash attention over rows of various lengths, where it has one."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    # Versions differ in how they are told "causal", and in whether heads that share keys have to be asked for.
    options: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    if "enable_gqa" in known:
        options["enable_gqa"] = True

    def attend(*arguments: Any, scale: float | None) -> Tensor:
        return cast("Tensor", varlen_attn(*arguments, scale=scale, **options))

    return attend if "scale" in known else None


def _mask(*arguments: Any, **options: Any) -> Tensor | None:
    from transformers.masking_utils import sdpa_mask

    return None if getattr(_here, "packed", False) else sdpa_mask(*arguments, **options)
