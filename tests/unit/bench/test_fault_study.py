"""The study's own work: its data, its commands, and what is kept between two calls."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchmarks.faults import rows as changes
from benchmarks.faults import study as study_module
from benchmarks.faults.__main__ import app
from benchmarks.faults.case import Case, Row
from benchmarks.faults.catalogue import CASES
from benchmarks.faults.injections import INJECTIONS
from benchmarks.faults.study import FaultStudy
from gad_ray.cli import run
from gad_ray.config import RunConfig, load_config
from gad_ray.config.load import to_yaml
from gad_ray.data.dataset import load_dataset
from tests.game import make_rows, write_rows

ROWS: list[Row] = [
    {"id": f"r{i}", "content": f"Question {i}?", "teacher_response": f"This is the answer {i}."}
    for i in range(40)
]
SICK = Case(
    name="numb",
    done="something",
    warmup=4,
    game=0,
    overrides=("critic.loss.temperature.value=0.05",),
    named_by=("loss-saturated",),
)
INJECTED = Case(name="rounded", done="", injection="rounded-scores", named_by=("scores-rounded",))
EVENT = {"event": "health", "rule": "loss-saturated", "severity": "warning", "stage": "warmup", "step": 3}


@pytest.fixture
def base(tmp_path: Path, tied_model: Path) -> Path:
    """A recipe of a tiny model and its own rows."""
    config = load_config("quickstart").model_dump(mode="json")
    config["data"] |= {
        "train": [str(write_rows(tmp_path / "own.jsonl", make_rows()))],
        "heldout": [],
        "heldout_prompts": 6,
    }
    for role in ("policy", "critic"):
        config[role]["model"] |= {"model": str(tied_model), "chat_template": None}
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that a study would run; each is taken to have been a run with one alarm."""
    seen: list[list[str]] = []

    def play(command: Sequence[str], log: Path, *, deadline_s: float) -> int:
        assert deadline_s > 0.0
        seen.append(list(command))
        settings = dict(part.split("=", 1) for part in command if "=" in part)
        root = Path(settings["output_dir"]) / settings["name"]
        (root / "exports" / "policy").mkdir(parents=True)
        (root / "metrics.jsonl").write_text('{"step": 1}\n')
        (root / "events.jsonl").write_text(json.dumps(EVENT) + "\n")
        log.write_text("")
        return 0

    monkeypatch.setattr(study_module, "exit_code", play)
    return seen


def study(out: Path, base: Path, *cases: Case) -> FaultStudy:
    return FaultStudy(cases=cases, out=out, base=base, tell=lambda _: None)


def config_of(command: Sequence[str]) -> RunConfig:
    recipe, *overrides = command[command.index("train") + 1 :]
    return load_config(recipe, overrides)


def test_a_case_is_the_ordinary_command_with_its_settings_and_its_data(
    tmp_path: Path, base: Path, commands: list[list[str]]
) -> None:
    found = study(tmp_path / "out", base, SICK, INJECTED).run()
    plain, sick = commands
    assert plain[:4] == [sys.executable, "-m", "gad_ray", "train"]
    assert sick[:5] == [sys.executable, "-m", "benchmarks.faults.inject", "rounded-scores", "train"]
    config = config_of(plain)
    assert (config.name, config.stages.warmup.steps) == ("numb", 4)
    assert "value: 0.05" in to_yaml(config)
    (train,) = config.data.train
    assert all(
        set(json.loads(line)) == {"id", "content", "teacher_response"}
        for line in Path(train).read_text().splitlines()
    )
    assert [(v.named_by, v.after) for v in found] == [("loss-saturated", 3), (None, None)]
    kept = json.loads((tmp_path / "out" / "faults.json").read_text())["cases"]
    assert list(kept) == ["numb", "rounded"]
    assert kept["numb"]["alarms"][0]["rule"] == "loss-saturated"
    assert not (tmp_path / "out" / "runs" / "numb" / "exports").exists()


def test_what_was_run_is_kept_until_what_it_would_be_changes(
    tmp_path: Path, base: Path, commands: list[list[str]]
) -> None:
    out = tmp_path / "out"
    study(out, base, SICK).run()
    study(out, base, SICK).run()
    assert len(commands) == 1
    # Whatever is thought of it now, the run is the same.
    (found,) = study(out, base, replace(SICK, named_by=("stalled",))).run()
    assert found.false_alarms == ("loss-saturated",)
    assert len(commands) == 1
    study(out, base, replace(SICK, warmup=5)).run()
    assert len(commands) == 2
    base.write_text(base.read_text() + "\n# another\n")
    study(out, base, SICK).run()
    assert len(commands) == 3


def test_a_run_that_failed_by_itself_is_made_again(
    tmp_path: Path, base: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(command: Sequence[str], log: Path, *, deadline_s: float) -> int:
        commands.append([*command, str(deadline_s)])
        log.write_text("error: the disk is full\n")
        return 1

    succeeds = study_module.exit_code
    monkeypatch.setattr(study_module, "exit_code", fails)
    (found,) = study(tmp_path / "out", base, SICK).run()
    assert found.failed
    monkeypatch.setattr(study_module, "exit_code", succeeds)
    (found,) = study(tmp_path / "out", base, SICK).run()
    assert not found.failed
    assert len(commands) == 2


def test_a_run_that_was_broken_off_begins_anew(tmp_path: Path, base: Path, commands: list[list[str]]) -> None:
    left = tmp_path / "out" / "runs" / "numb" / "records"
    left.mkdir(parents=True)
    study(tmp_path / "out", base, SICK).run()
    assert not left.exists()


def test_the_rows_are_those_of_the_commonest_prompt_lengths(tmp_path: Path, base: Path) -> None:
    config = load_config(str(base))
    found = changes.study_rows(config, quarantine_path=tmp_path / "quarantine.jsonl")
    assert 0 < len(found) < 40
    assert {row["id"] for row in found} <= {row["id"] for row in make_rows()}


# -- changed data ---------------------------------------------------------------------------------------


def test_a_handful_of_prompts_is_trained_on_and_none_of_them_is_held_out() -> None:
    found = changes.few_prompts(ROWS)
    assert len(found.train) == 4
    assert not {row["id"] for row in found.train} & {row["id"] for row in found.heldout}
    assert len(found.train) + len(found.heldout) == len(ROWS)


def test_a_changed_teacher_says_something_else_to_the_same_prompts() -> None:
    cut, marked = changes.cut_teacher(ROWS).train, changes.marked_teacher(ROWS).train
    for rows in (cut, marked):
        assert [(r["id"], r["content"]) for r in rows] == [(r["id"], r["content"]) for r in ROWS]
    assert {r["teacher_response"] for r in cut} == {"This is the"}
    assert marked[3]["teacher_response"] == "This is the answer 3. [END]"


def test_shared_prompts_are_quarantined_from_training(tmp_path: Path) -> None:
    found = changes.shared_prompts(ROWS)
    train = changes.write_rows(tmp_path / "train.jsonl", found.train)
    heldout = changes.write_rows(tmp_path / "heldout.jsonl", found.heldout)
    config = load_config("quickstart").data.model_copy(
        update={"train": (train,), "heldout": (heldout,), "heldout_prompts": 16}
    )
    data = load_dataset(
        config,
        count_prompt_tokens=lambda _: 1,
        count_response_tokens=lambda _: 1,
        quarantine_path=tmp_path / "quarantine.jsonl",
    )
    reasons = [
        json.loads(line)["reason"] for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()
    ]
    assert reasons == [CASES["prompts-on-both-sides"].quarantined] * 16
    assert (len(data.train), len(data.heldout)) == (24, 16)


# -- the command ------------------------------------------------------------------------------------------


def test_every_injection_of_a_case_is_there_and_every_one_is_used() -> None:
    assert {case.injection for case in CASES.values()} - {None} == set(INJECTIONS)


def test_the_command_tables_what_is_there_and_writes_the_page(
    tmp_path: Path, base: Path, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    arguments = ["temperature-too-low", "seed-0", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as left:
        run(app, "faults", [*arguments, "--base", str(base), "--docs", str(page)])
    assert left.value.code == 0
    assert len(commands) == 2
    told = capsys.readouterr().out
    assert "1 of 1 faults were named within 20 steps." in told
    assert "Of 1 healthy runs 0 had an alarm of severity critical, 1 any at all." in told
    assert "| temperature-too-low | τ 0.05 in place of 2 | loss-saturated | 3 |" in page.read_text()


def test_the_command_lists_all_cases_without_running_one(
    commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(app, "faults", ["--list"])
    told = capsys.readouterr().out
    assert all(name[:20] in told for name in CASES)
    assert commands == []
    with pytest.raises(SystemExit) as left:
        run(app, "faults", ["flat-battery"])
    assert left.value.code == 2


@pytest.mark.parametrize("reacts", [True, False])
def test_a_command_that_does_not_end_is_ended(
    reacts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ignore = "" if reacts else "signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    code = f"import signal, time; {ignore} print('up', flush=True); time.sleep(60)"
    monkeypatch.setattr("gad_ray.bench.process._GRACE_S", 0.2)
    log = tmp_path / "log"
    found = study_module.exit_code([sys.executable, "-c", code], log, deadline_s=0.5)
    assert found is None


def test_a_command_tells_its_exit_code_and_its_words_go_to_the_log(tmp_path: Path) -> None:
    code = "import sys; print('said'); sys.exit(3)"
    log = tmp_path / "log"
    assert study_module.exit_code([sys.executable, "-c", code], log, deadline_s=60.0) == 3
    assert log.read_text() == "said\n"
    shutil.rmtree(tmp_path)
