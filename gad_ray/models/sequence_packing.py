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

CANNOT = (AttributeError, TypeError, ValueError, RuntimeError, NotImplementedError)
"""What backbones raise when they are asked for something that they were not made for."""

_BLOCK_TOKENS = 1
"""Short rows that fit into so many tokens are attended to in one call, behind a mask; 1: every row in a call of its own. 256
spares 3 to 6 % of a pass, and lets a row's rounding depend on its company."""

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
        self._blocks: tuple[_Block, ...] | None = None
        self._varlen: _Varlen | None = None

    @property
    def blocks(self) -> tuple[_Block, ...]:
        """The same for attention a few rows at a time."""
        if self._blocks is None:
            self._blocks = _blocks(self.spans, self._device)
        return self._blocks

    @property
    def varlen(self) -> _Varlen:
        """The same for flash attention."""
        if self._varlen is None:
            self._varlen = _Varlen.of(self.spans, self._device)
        return self._varlen


@dataclass(frozen=True, slots=True)
class _Block:
    """Tokens that are attended to in one call.

    Attributes:
        queries: Their places.
        keys: Places of what they attend to, one after the other.
        mask: [1, 1, queries, keys] who attends to whom; None where that is plainly causal.
    """

    queries: slice
    keys: tuple[slice, ...]
    mask: Bool[Tensor, "1 1 queries keys"] | None


def _blocks(spans: Sequence[Span], device: torch.device) -> tuple[_Block, ...]:
    """Spans in calls: short ones that follow upon each other together, behind a mask, a long one alone."""
    found: list[_Block] = []
    at = 0
    while at < len(spans):
        first, last = spans[at], at + 1
        begin = first.begin if first.prompt is None else first.prompt[0]
        if first.prompt is None:
            while last < len(spans) and spans[last].end - begin <= _BLOCK_TOKENS:
                last += 1
        members = spans[at:last]
        if len(members) > 1:
            places = slice(begin, members[-1].end)
            mask = torch.zeros(members[-1].end - begin, members[-1].end - begin, dtype=torch.bool)
            for span in members:
                own = slice(span.begin - begin, span.end - begin)
                mask[own, own] = True
                if span.prompt is not None:
                    mask[own, span.prompt[0] - begin : span.prompt[1] - begin] = True
            found.append(_Block(places, (places,), mask.tril()[None, None].to(device)))
        else:
            own = slice(first.begin, first.end)
            prompt = () if first.prompt is None else (slice(*first.prompt),)
            found.append(_Block(own, (*prompt, own), _behind_prompt(first, device)))
        at = last
    return tuple(found)


def _behind_prompt(span: Span, device: torch.device) -> Tensor | None:
    """Who attends to whom where a span's keys stand behind its prompt's."""
    if span.prompt is None:
        return None
    own, prompt = span.end - span.begin, span.prompt[1] - span.prompt[0]
    return torch.ones(own, prompt + own, dtype=torch.bool, device=device).tril(prompt)[None, None]


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
    except CANNOT as error:
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
    for block in packing.blocks:
        keys, values = (
            part[:, :, block.keys[0]]
            if len(block.keys) == 1
            else torch.cat([part[:, :, one] for one in block.keys], dim=2)
            for part in (key, value)
        )
        own = query[:, :, block.queries]
        found.append(sdpa_attention_forward(module, own, keys, values, block.mask, **options)[0])
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
    # PyTorch 2.10 says causal by a flag, later ones by a window; heads that share keys are asked for from 2.12 on.
    options: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    if "enable_gqa" in known:
        options["enable_gqa"] = True

    def attend(*arguments: Any, scale: float | None) -> Tensor:
        return cast("Tensor", varlen_attn(*arguments, scale=scale, **options))

    return attend if "scale" in known else None


def _mask(*arguments: Any, **options: Any) -> Tensor | None:
    from transformers.masking_utils import sdpa_mask

    return None if getattr(_here, "packed", False) else sdpa_mask(*arguments, **options)
