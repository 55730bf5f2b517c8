"""Odd input of every kind ends with an error of ours, soon, and never with a traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gad_ray import cli
from gad_ray.config import load_config
from gad_ray.config.models import ModelConfig
from gad_ray.core.pooling import MeanPooling
from gad_ray.data.layout import Layout
from gad_ray.data.sources import resolve_sources
from gad_ray.errors import ConfigError, GadError, ModelError
from gad_ray.failure import EXIT_CODE, without_secrets
from gad_ray.models.critic import CriticModel
from gad_ray.models.critic_export import export_critic
from gad_ray.quality.rows import read_sided_rows
from tests.unit.builders import PROMPTS, TEACHER

QUICK = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

# -- configurations ------------------------------------------------------------------------------------

LAUGHS = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("!!binary aGk=", "binary"),
        ("!!set {a}", "set"),
        ("!!python/name:os.system", "python"),
        ("{[1, 2]: 3}", "a key is a name"),
        ("{1: 3}", "a key is a name"),
        ("{null: 3}", "a key is a name"),
        ("{2026-11-26: 3}", "name"),
        ("[" * 3000 + "]" * 3000, "more than 64 levels"),
        ("&a [*a]", "once its aliases are followed"),
        ("9" * 6000, "name"),
        ('"\\ud800"', "name"),
        (".nan", "name"),
        ("\x00", "name"),
        ("{a: 1, a: 2}", "given twice"),
    ],
)
def test_a_value_that_no_setting_can_be_is_refused_by_name(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("quickstart", [f"name={text}"])
    assert told in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_a_date_is_text_as_everybody_who_names_a_run_by_it_means() -> None:
    assert load_config("quickstart", ["name=2026-11-26"]).name == "2026-11-26"


def test_a_billion_laughs_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "laughs.yaml"
    path.write_text(LAUGHS, encoding="utf-8")
    with pytest.raises(ConfigError, match="once its aliases are followed"):
        load_config(str(path))


@QUICK
@given(
    key=st.sampled_from(["name", "seed", "policy.loss", "data.train", "stages", ""]),
    value=st.text(max_size=40),
)
def test_any_override_is_taken_or_refused(key: str, value: str) -> None:
    try:
        load_config("quickstart", [f"{key}={value}"])
    except ConfigError:
        return


@QUICK
@given(content=st.binary(max_size=200))
def test_any_file_of_settings_is_refused_or_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):  # no bytes by chance are a whole configuration
        load_config(str(path))


# -- data ----------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ROWS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("content", "messages", "prompt", "teacher_response", "id", "meta", "system"), JSON
    ),
)


def read_all(path: Path) -> None:
    for source in resolve_sources([str(path)]):
        for row in read_sided_rows(source, Layout()):
            assert row is not None


@QUICK
@given(rows=st.lists(ROWS, max_size=4))
def test_rows_of_any_shape_are_read_or_rejected_one_by_one(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    try:
        read_all(path)
    except GadError:
        return


@QUICK
@given(content=st.binary(max_size=200), ending=st.sampled_from(["jsonl", "parquet", "json"]))
def test_files_of_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes, ending: str) -> None:
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(content)
    try:
        read_all(path)
    except GadError:
        return


# -- exports -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def export(tied_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = ModelConfig(model=str(tied_model), compute="float32")
    critic = CriticModel.build(config, pooling=MeanPooling(), max_tokens=512, seed=0)
    directory = tmp_path_factory.mktemp("export") / "critic"
    export_critic(critic, directory, step=0, temperature=1.0)
    return directory


def files_of(export: Path) -> list[str]:
    return sorted(str(path.relative_to(export)) for path in export.rglob("*") if path.is_file())


def damaged(export: Path, out: Path, name: str, content: bytes | None) -> Path:
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(export, out)
    if content is None:
        (out / name).unlink()
    else:
        (out / name).write_bytes(content)
    return out


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b'{"a": ' * 2000,
        b"\x10\x00\x00\x00\x00\x00\x00\x00{}",
    ],
    ids=["missing", "empty", "{}", "[]", "null", "no text", "deep", "header"],
)
def test_a_damaged_export_is_refused_by_the_command(
    export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    """Or scores: a file may be one that nothing needs."""
    rows, out = tmp_path / "rows.jsonl", tmp_path / "scored.jsonl"
    rows.write_text(json.dumps({"content": PROMPTS[0], "teacher_response": TEACHER[0]}), encoding="utf-8")
    codes: dict[str, object] = {}
    for name in files_of(export):
        directory = damaged(export, tmp_path / "critic", name, content)
        with pytest.raises(SystemExit) as left:
            cli.main(["score", "--critic", str(directory), "--in", str(rows), "--out", str(out)])
        codes[name] = left.value.code
        told = capsys.readouterr().err
        if left.value.code:
            assert str(directory) in told.replace("\n", ""), (name, told)
            assert "Traceback" not in told, (name, told)
    assert set(codes.values()) <= {0, ModelError.exit_code}, codes
    assert codes["critic.json"] == codes["model.safetensors"] == ModelError.exit_code


# -- the border ----------------------------------------------------------------------------------------


def test_what_nobody_foresaw_is_told_in_a_sentence_and_kept_in_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    def unforeseen(**_: object) -> None:
        raise TypeError("unhashable type: 'dict' for api_key=hunter2")

    monkeypatch.setattr(cli, "app", unforeseen)
    with pytest.raises(SystemExit) as left:
        cli.main(["train", "x", "--judge-key=hunter2", "https://me:hunter2@host/"])
    assert left.value.code == EXIT_CODE
    told = capsys.readouterr().err
    assert "TypeError: unhashable type" in told
    (report,) = tmp_path.glob("gad-ray-error-*.txt")
    assert str(report) in told.replace("\n", "")
    kept = report.read_text(encoding="utf-8")
    assert "test_odd_input.py" in kept
    assert "torch" in kept
    assert "https://***" in kept
    assert report.stat().st_mode & 0o077 == 0


def test_secrets_are_taken_out_of_a_command_line() -> None:
    told = without_secrets(
        "gad-ray compare --api-key abc --token=def https://me:pw@host Bearer ghi name=fine"
    )
    assert not any(secret in told for secret in ("abc", "def", "pw", "ghi"))
    assert "name=fine" in told


def test_a_terminal_that_is_not_utf_8_gets_escapes_and_no_traceback() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LANG": "C", "LC_ALL": "C"}
    command = [sys.executable, "-m", "gad_ray", "diagnose", "--rules", "--lang", "zh"]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert b"\\u" in done.stdout
