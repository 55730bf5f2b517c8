"""How the rows of a round are put into batches."""

from __future__ import annotations

from collections.abc import Sequence

from gad_ray.core.packing import plan_even_batches, plan_micro_batches, plan_tight_batches
from gad_ray.core.shared_prompts import cut_by_prompt, packed_tokens
from gad_ray.serving.application.jobs import Row

ROUND_BATCHES = 4
"""Batches' worth of rows that are sorted by length together: more waste less padding, and delay who comes next."""

_CPU_PASS_TOKENS = 32
"""What a pass costs on a CPU however few tokens it has, in tokens. On a GPU it is far more, and passes are full."""

_LEAST_PASS_TOKENS = 128
"""Rows end to end are not divided among passes at once into smaller ones."""


def plan_round(
    rows: Sequence[Row], *, budget: int, on_gpu: bool, end_to_end: bool, at_once: int = 1
) -> list[list[Row]]:
    """Batches of a round.

    Args:
        rows: Distinct rows of one critic.
        budget: Tokens of one forward pass that are computed: padding counts, a prompt that rows share counts once.
        on_gpu: Where they are computed.
        end_to_end: Rows are not padded, and a common prompt is computed once.
        at_once: Passes that are made at the same time.
    """
    if end_to_end:
        tokens = [row.pair.row for row in rows]
        # No piece is more than a pass's share of what there is.
        share = max(_LEAST_PASS_TOKENS, -(-packed_tokens(tokens) // at_once))
        pieces, sizes = cut_by_prompt(tokens, max_tokens=min(budget, share))
        even = plan_even_batches(sizes, max_tokens=budget, at_once=at_once, least_tokens=_LEAST_PASS_TOKENS)
        return [[rows[i] for piece in batch for i in pieces[int(piece)]] for batch in even]
    lengths = [len(row.pair) for row in rows]
    if on_gpu:
        plans = plan_micro_batches(lengths, max_tokens=budget)
    else:
        plans = plan_tight_batches(lengths, max_tokens=budget, pass_tokens=_CPU_PASS_TOKENS)
    return [[rows[int(i)] for i in plan] for plan in plans]
