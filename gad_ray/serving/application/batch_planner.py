"""How the rows of a round are put into batches."""

from __future__ import annotations

from collections.abc import Sequence

from gad_ray.core.packing import plan_even_batches, plan_micro_batches, plan_tight_batches
from gad_ray.serving.application.jobs import Row

ROUND_BATCHES = 4
"""Batches' worth of rows that are sorted by length together: more waste less padding, and delay who comes next."""

_CPU_PASS_TOKENS = 32
"""What a pass costs on a CPU however few tokens it has, in tokens. On a GPU it is far more, and passes are full."""

_LEAST_PASS_TOKENS = 128
"""Rows end to end are not divided among passes at once into smaller ones."""

_MIN_SHARED_TOKENS = 32
"""A shorter prompt is not worth a pass of its own."""


def plan_round(
    rows: Sequence[Row],
    *,
    budget: int,
    on_gpu: bool,
    share_prompts: bool,
    end_to_end: bool = False,
    at_once: int = 1,
) -> list[tuple[list[Row], bool]]:
    """Batches of a round, and whether their rows share a prompt that is computed once.

    The budget counts a shared prompt for every row all the same: its keys and values are held for each.

    Args:
        rows: Distinct rows of one critic.
        budget: Tokens of one forward pass, padding included.
        on_gpu: Where they are computed.
        share_prompts: Whether the critic can compute a common prompt once.
        end_to_end: Rows that share none are not padded.
        at_once: Passes that are made at the same time.
    """

    def by_length(rows: Sequence[Row], *, shared: int = 0) -> list[list[Row]]:
        lengths = [len(row.pair) for row in rows]
        if end_to_end and not shared:
            plans = plan_even_batches(
                lengths, max_tokens=budget, at_once=at_once, least_tokens=_LEAST_PASS_TOKENS
            )
        elif on_gpu:
            plans = plan_micro_batches(lengths, max_tokens=budget)
        else:
            # What is shared is not computed for each, so that more rows are as much work.
            room = budget * (ROUND_BATCHES if shared else 1)
            plans = plan_tight_batches(lengths, max_tokens=room, pass_tokens=_CPU_PASS_TOKENS + shared)
        return [[rows[int(i)] for i in plan] for plan in plans]

    prompts: dict[bytes, list[Row]] = {}
    for row in rows:
        prompts.setdefault(row.pair.prompt, []).append(row)
    alone: list[Row] = []
    plans: list[tuple[list[Row], bool]] = []
    for group in prompts.values():
        start = group[0].pair.row.start
        if share_prompts and len(group) > 1 and start >= _MIN_SHARED_TOKENS:
            plans += [(batch, True) for batch in by_length(group, shared=start)]
        else:
            alone += group
    return plans + [(batch, False) for batch in by_length(alone)]
