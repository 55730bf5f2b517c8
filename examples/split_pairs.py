"""Hold out part of a table of pairs: a seeded draw, in the same proportion from every stratum."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gad_ray.data.collect_files import Table, write_table
from gad_ray.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Two tables with the input's columns and order of rows.

    ``num_dropped`` rows are in neither: their prompt is that of a held-out row, so training on them would
    leak it.
    """

    train: Table
    heldout: Table
    num_dropped: int


def split_heldout(table: Table, *, num_heldout: int, seed: int, by: str | None = None) -> Split:
    """Draw ``num_heldout`` rows of distinct prompts.

    Which rows are drawn depends on the seed, the ids and the strata's sizes, but not on the order of rows.

    Args:
        table: Pairs with the columns ``id`` (distinct strings) and ``content``.
        num_heldout: Rows to hold out.
        seed: Seed of the draw.
        by: Column, or key of ``meta``, whose values are the strata. None draws from all rows alike. Sizes
            follow the largest remainder, so each stratum is within one row of its exact share.

    Raises:
        DataError: A column is missing, an id is there twice, or too few distinct prompts to leave any for training.
    """
    ids, contents = _column(table, "id"), _column(table, "content")
    if len(set(ids)) != len(ids):
        raise DataError("the column id holds an id twice", hint="give every row an id of its own")
    strata = ["" if value is None else str(value) for value in _strata(table, by)]

    ranks = [hashlib.sha256(f"{seed}:{row_id}".encode()).digest() for row_id in ids]
    prompts = [_prompt_key(content) for content in contents]
    by_stratum: dict[str, list[int]] = defaultdict(list)
    seen: set[str] = set()
    for index in sorted(range(len(ids)), key=ranks.__getitem__):
        if prompts[index] not in seen:
            seen.add(prompts[index])
            by_stratum[strata[index]].append(index)
    if not 0 < num_heldout < len(seen):
        raise DataError(
            f"cannot hold out {num_heldout} of {len(seen)} distinct prompts",
            hint=f"hold out between 1 and {len(seen) - 1}" if len(seen) > 1 else "bring more prompts",
        )
    quotas = _largest_remainder({name: len(rows) for name, rows in by_stratum.items()}, num_heldout)
    heldout = {index for name, rows in by_stratum.items() for index in rows[: quotas[name]]}
    leaked = {prompts[index] for index in heldout}
    train = [index for index in range(len(ids)) if prompts[index] not in leaked]
    return Split(
        train=table.take(train),
        heldout=table.take(sorted(heldout)),
        num_dropped=len(ids) - len(train) - len(heldout),
    )


def split_file(
    pairs: Sequence[Path], *, train: Path, heldout: Path, num_heldout: int, seed: int, by: str | None = None
) -> Split:
    """``split_heldout`` from Parquet files, read as one, to two Parquet files, each written atomically.

    Raises:
        DataError: As ``split_heldout``; or a file cannot be read, or has other columns than the first.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables: list[Table] = []
    for path in pairs:
        try:
            tables.append(pq.read_table(path))
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(
                f"cannot read pairs: {error}", where=str(path), hint="name a Parquet file"
            ) from error
        if tables[-1].schema != tables[0].schema:
            raise DataError(
                f"its columns are not those of {pairs[0]}", where=str(path), hint="split it by itself"
            )
    if not tables:
        raise DataError("no file of pairs is named", hint="name at least one")
    split = split_heldout(pa.concat_tables(tables), num_heldout=num_heldout, seed=seed, by=by)
    write_table(train, split.train)
    write_table(heldout, split.heldout)
    return split


def _column(table: Table, name: str) -> list[Any]:
    if name not in table.column_names:
        raise DataError(
            f"there is no column {name!r}, only {', '.join(table.column_names)}", hint="bring pairs with it"
        )
    return cast("list[Any]", table.column(name).to_pylist())


def _strata(table: Table, by: str | None) -> list[Any]:
    if by is None:
        return [None] * table.num_rows
    if by in table.column_names:
        return _column(table, by)
    metas = _column(table, "meta") if "meta" in table.column_names else []
    if not any(isinstance(meta, dict) and by in meta for meta in metas):
        raise DataError(
            f"there is neither a column nor a key of meta named {by!r}", hint="name one that is there"
        )
    return [cast("dict[str, Any]", meta or {}).get(by) for meta in metas]


def _prompt_key(content: object) -> str:
    """Equal for prompts that are the same but for white space."""
    return " ".join(json.dumps(content, ensure_ascii=False).replace("\\n", " ").split())


def _largest_remainder(sizes: dict[str, int], total: int) -> dict[str, int]:
    """Integers that sum to ``total`` in proportion to ``sizes``; ties go to the first name."""
    everything = sum(sizes.values())
    quotas = {name: size * total // everything for name, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda name: (-(sizes[name] * total % everything), name))
    for name in by_remainder[: total - sum(quotas.values())]:
        quotas[name] += 1
    return quotas
