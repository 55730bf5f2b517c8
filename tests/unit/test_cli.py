"""The command line: what it passes on, what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gad_ray import __version__
from gad_ray.cli import main
from gad_ray.config import RunConfig, load_config
from gad_ray.errors import DataError, GadError, SyncError


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return int(left.value.code or 0)


COMMANDS = (
    *("train", "fit", "recipes list", "recipes show", "recipes copy", "data collect", "data report"),
    *("bench methods", "bench serve", "bench step", "bench learner", "bench sync"),
    *("bench exchange", "bench scale"),
    *("evaluate", "replay", "compare", "score", "serve", "report", "diagnose", "doctor", "plan"),
)


class Controller:
    """Stands in for the controller: notes what it is given, and returns or raises what it is told to."""

    def __init__(self) -> None:
        self.config: RunConfig | None = None
        self.resume: str | None = None
        self.ends: int | GadError = 0

    def train(self, config: RunConfig, *, resume: str | None) -> int:
        self.config, self.resume = config, resume
        if isinstance(self.ends, GadError):
            raise self.ends
        return self.ends


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Controller:
    fake = Controller()
    module = ModuleType("gad_ray.controller.train")
    module.train = fake.train  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gad_ray.controller.train", module)
    return fake


def test_help_and_version_import_nothing_that_takes_time() -> None:
    calls = [[*command.split(), "--help"] for command in ("", *COMMANDS)]
    code = (
        "import sys\nimport gad_ray\nfrom gad_ray.cli import main\n"
        f"for arguments in {[*calls, ['--version']]}:\n"
        "    try: main(arguments)\n"
        "    except SystemExit as left: assert not left.code\n"
        "heavy = {'torch', 'ray', 'transformers', 'yaml', 'pyarrow', 'numpy', 'rich', 'httpx'}\n"
        "print('imported:', *sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    for command in ("train", "recipes", "data", "score", "doctor", f"gad-ray {__version__}"):
        assert command in done.stdout
    assert done.stdout.splitlines()[-1].strip() == "imported:"


def test_overrides_and_options_may_stand_in_any_order_after_the_recipe(controller: Controller) -> None:
    code = run(
        "train", "field", "seed=3", "--resume", "auto", "rollout.temperature=0.7", "critic.loss.margin=-1.0"
    )
    assert code == 0
    expected = load_config("field", ["seed=3", "rollout.temperature=0.7", "critic.loss.margin=-1.0"])
    assert controller.config == expected
    assert controller.resume == "auto"


@pytest.mark.parametrize("code", [0, 130, 143])
def test_the_exit_code_is_the_controllers(controller: Controller, code: int) -> None:
    controller.ends = code
    assert run("train", "field") == code


@pytest.mark.parametrize(
    ("error", "code"), [(SyncError("gap of 0.4"), 1), (DataError("no rows", where="a.jsonl"), 2)]
)
def test_an_error_ends_with_its_message_and_its_exit_code(
    controller: Controller, capsys: pytest.CaptureFixture[str], error: GadError, code: int
) -> None:
    controller.ends = error
    assert run("train", "field") == code
    shown = capsys.readouterr()
    assert str(error) in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_a_traceback_is_shown_where_it_is_asked_for(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAD_RAY_TRACEBACK", "1")
    controller.ends = SyncError("gap of 0.4")
    with pytest.raises(SyncError):
        main(["train", "field"])


def test_a_mistyped_key_exits_2_and_is_neither_wrapped_nor_cut(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "quickstart", "rollout.temprature=0.6") == 2
    line = next(line for line in capsys.readouterr().err.splitlines() if "temprature" in line)
    assert "Did you mean 'temperature'?" in line
    assert "top_p" in line


def test_an_unknown_recipe_exits_2_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "quikstart") == 2
    assert "Did you mean 'quickstart'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["train"], ["train", "field", "--resum"], ["recipes", "shw"], ["score"], ["serve"]]
)
def test_a_wrong_command_line_exits_2(arguments: list[str]) -> None:
    assert run(*arguments) == 2


def test_a_dry_run_cannot_resume(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "field", "--dry-run", "--resume", "auto") == 2
    assert "--resume" in capsys.readouterr().err


def test_recipes_are_listed_with_what_they_are_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipes", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["field", "paper", "quickstart"]
    assert all(len(line.split()) > 3 for line in lines)


def test_a_copied_recipe_is_the_one_that_is_shown_and_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("recipes", "show", "paper") == 0
    shown = capsys.readouterr().out
    assert run("recipes", "copy", "paper", "mine.yaml") == 0
    assert (tmp_path / "mine.yaml").read_text(encoding="utf-8") == shown
    assert load_config("mine.yaml") == load_config("paper")
    assert run("recipes", "copy", "paper") == 0
    assert (tmp_path / "paper.yaml").is_file()


def test_a_copy_writes_over_a_file_only_when_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("mine")
    assert run("recipes", "copy", "paper", str(mine)) == 2
    assert "--force" in capsys.readouterr().err
    assert mine.read_text() == "mine"
    assert run("recipes", "copy", "paper", str(mine), "--force") == 0
    assert load_config(str(mine)).name == "paper"


def test_a_copy_into_no_directory_is_an_error_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("recipes", "copy", "paper", str(tmp_path / "none" / "a.yaml")) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_options_of_a_collection_reach_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from gad_ray.data.collect import CollectSettings

    given: list[CollectSettings] = []

    def collect(settings: CollectSettings, *, on_progress: object) -> None:
        del on_progress
        given.append(settings)
        raise DataError("that was all")

    monkeypatch.setattr("gad_ray.data.collect.collect", collect)
    source, out = tmp_path / "p.jsonl", tmp_path / "o.parquet"
    options = ["--endpoint", "http://host:1/v1", "--model", "m", "--in", str(source), "--out", str(out)]
    options += [
        "--seed",
        "-1",
        "--concurrency",
        "3",
        "--max-tokens",
        "99",
        "--timeout",
        "7",
        "--api-key-env",
        "KEY",
    ]
    assert run("data", "collect", *options) == DataError.exit_code
    assert given == [
        CollectSettings(
            endpoint="http://host:1/v1",
            model="m",
            input=source,
            output=out,
            seed=None,
            concurrency=3,
            max_tokens=99,
            timeout_s=7.0,
            api_key_env="KEY",
        )
    ]


def test_the_options_of_a_load_reach_its_measurement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from gad_ray.bench.serve.setting import Setting
    from gad_ray.bench.serve.study import ServeStudy

    seen: list[Setting] = []

    def measure(self: ServeStudy) -> dict[str, Any]:
        seen.append(self.setting)
        return {}

    monkeypatch.setattr(ServeStudy, "run", measure)
    (tmp_path / "critic.json").write_text("{}")
    options = ["--critic", str(tmp_path), "--out", str(tmp_path / "out"), "--threads", "1", "--seconds", "3"]
    assert run("bench", "serve", "latency", *options) == 0
    (setting,) = seen
    assert (setting.critic, setting.threads, setting.seconds) == (tmp_path.resolve(), 1, 3.0)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [(["--dtype", "x"], "float32 or bfloat16"), (["--critic", "/nowhere"], "is no exported critic")],
)
def test_a_load_that_cannot_be_is_refused(
    wrong: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("bench", "serve", "--out", str(tmp_path / "out"), *wrong) == 2
    assert told in capsys.readouterr().err


def test_scores_that_find_no_room_are_told(
    scorer: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del scorer
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"content": "Hi", "response": "Hello"}\n')
    assert run("score", "--critic", "c", "--in", str(rows), "--out", "/dev/full") == DataError.exit_code
    assert "cannot be written: No space left on device" in capsys.readouterr().err


def test_a_collection_from_no_url_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--in", str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "o.parquet")]
    assert run("data", "collect", "--endpoint", "nowhere", "--model", "m", *where) == 2
    assert "endpoint" in capsys.readouterr().err


@pytest.fixture
def scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    def score_rows(
        critic: str, rows: Iterable[Mapping[str, object]], *, key_env: str
    ) -> list[dict[str, Any]]:
        return [{**row, "score": float(len(str(row["response"])))} for row in rows]

    module = ModuleType("gad_ray.evaluation.scoring")
    module.score_rows = score_rows  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gad_ray.evaluation.scoring", module)


@pytest.mark.usefixtures("scorer")
def test_rows_of_a_file_are_written_with_their_scores(tmp_path: Path) -> None:
    source, out = tmp_path / "rows.jsonl", tmp_path / "scored.jsonl"
    source.write_text(
        '{"content": "你好", "response": "abc"}\n\n{"content": "b", "response": "d"}\n', encoding="utf-8"
    )
    assert run("score", "--critic", str(tmp_path), "--in", str(source), "--out", str(out)) == 0
    text = out.read_text(encoding="utf-8")
    assert "你好" in text
    assert [json.loads(line)["score"] for line in text.splitlines()] == [3.0, 1.0]


@pytest.mark.usefixtures("scorer")
@pytest.mark.parametrize(
    ("line", "told"), [("{", "not JSON"), ("[1]", "not an object but a list"), ("\x00", "not JSON")]
)
def test_a_row_that_cannot_be_read_is_named_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, told: str
) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"content": "a", "response": "b"}\n' + line + "\n")
    assert run("score", "--critic", str(tmp_path), "--in", str(source)) == 2
    error = capsys.readouterr().err
    assert f"{source}:2" in error
    assert told in error


@pytest.mark.usefixtures("scorer")
def test_a_missing_file_of_rows_is_an_error_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("score", "--critic", str(tmp_path), "--in", str(tmp_path / "none.jsonl")) == 2
    assert "none.jsonl" in capsys.readouterr().err


def test_rows_come_from_standard_input_and_go_to_standard_output(tmp_path: Path) -> None:
    scoring = tmp_path / "fake.py"
    scoring.write_text(
        "import sys, types\n"
        "module = types.ModuleType('gad_ray.evaluation.scoring')\n"
        "module.score_rows = lambda critic, rows, key_env: [{**row, 'score': 1.5} for row in rows]\n"
        "sys.modules[module.__name__] = module\n"
        "from gad_ray.cli import main\n"
        f"main(['score', '--critic', {str(tmp_path)!r}])\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, str(scoring)],
        input='{"content": "a", "response": "b"}\n',
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert json.loads(done.stdout) == {"content": "a", "response": "b", "score": 1.5}
