"""The packaged data set is what its card says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gad_ray
from examples.split_pairs import split_heldout
from gad_ray.config.data import DataConfig
from gad_ray.data.dataset import load_dataset

QUICKSTART = Path(gad_ray.__file__).parent / "data" / "packaged" / "quickstart"


def table(name: str) -> pa.Table:
    return pq.read_table(QUICKSTART / f"{name}.parquet")


def prompts(*names: str) -> dict[str, str]:
    lines = [
        line for name in names for line in (QUICKSTART / "inputs" / name).read_text("utf-8").splitlines()
    ]
    return {row["id"]: row["content"] for row in map(json.loads, lines)}


def test_every_packaged_row_is_usable_and_nothing_heldout_is_trained_on(tmp_path: Path) -> None:
    config = DataConfig(train=("package:quickstart/train",), heldout=("package:quickstart/heldout",))
    loaded = load_dataset(
        config,
        count_prompt_tokens=lambda messages: sum(len(message.content) for message in messages),
        count_response_tokens=len,
        quarantine_path=tmp_path / "quarantine.jsonl",
    )
    assert (len(loaded.train), len(loaded.heldout)) == (table("train").num_rows, table("heldout").num_rows)


def test_the_split_of_the_card_gives_the_packaged_parts() -> None:
    train, heldout = table("train"), table("heldout")
    split = split_heldout(pa.concat_tables([heldout, train]), num_heldout=64, seed=0, by="category")
    assert set(split.heldout.column("id").to_pylist()) == set(heldout.column("id").to_pylist())
    assert split.num_dropped == 0


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("train", ("prompts.jsonl", "prompts_more.jsonl")),
        ("heldout", ("prompts.jsonl", "prompts_more.jsonl")),
        ("zh", ("prompts_zh.jsonl",)),
    ],
)
def test_every_row_answers_one_of_the_packaged_prompts_in_full(name: str, inputs: tuple[str, ...]) -> None:
    asked = prompts(*inputs)
    for row in table(name).to_pylist():
        assert asked[row["id"]] == row["content"]
        assert row["meta"]["finish_reason"] == "stop"
        assert row["teacher_response"].strip()


def test_the_card_counts_what_is_there() -> None:
    card = (QUICKSTART / "DATA_CARD.md").read_text(encoding="utf-8")
    stated = {name: int(rows) for name, rows in re.findall(r"\| `(\w+)\.parquet` \| (\d+) \|", card)}
    assert stated == {name: table(name).num_rows for name in ("train", "heldout", "zh")}
    by_kind = re.findall(
        r"^\| (\w+) \| \d+ \| \d+ \| (\d+) \| (\d+) \| \d+ \| \d+ \| (\d+) \|$", card, re.MULTILINE
    )
    for column, name in enumerate(("train", "heldout", "zh"), start=1):
        kinds = [meta["category"] for meta in table(name).column("meta").to_pylist()]
        assert {row[0]: int(row[column]) for row in by_kind} == {
            kind: kinds.count(kind) for kind in set(kinds)
        }
