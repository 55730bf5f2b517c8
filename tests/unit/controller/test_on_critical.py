"""What a run does when a critical rule begins to hold."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from gad_ray.controller.on_critical import on_critical
from gad_ray.controller.progress import Progress
from gad_ray.errors import HealthError
from gad_ray.findings import Severity
from gad_ray.health import RunFinding
from gad_ray.interrupt import StopRequest
from gad_ray.observability.run_dir import RunDirectory


class Told:
    """Notes in order what a run would say and save, and lets its user answer a pause at once."""

    def __init__(self, directory: RunDirectory, stop: StopRequest) -> None:
        self.directory = directory
        self.stop = stop
        self.order: list[str] = []
        self.answer = "resume"

    def save(self) -> None:
        self.order.append("save")

    def event(self, name: str, **content: object) -> None:
        self.order.append(name)

    def info(self, text: str) -> None:
        assert f"touch {self.directory.resume_mark}" in text
        if self.answer == "resume":
            self.directory.resume_mark.touch()
        else:
            self.stop.signal_number = signal.SIGINT

    @contextmanager
    def pause(self, text: str) -> Generator[None]:
        self.order.append(text)
        yield


def finding(severity: Severity) -> RunFinding:
    return RunFinding(
        rule="score-collapse",
        severity=severity,
        evidence="score std 0.01",
        stage="warmup",
        step=7,
        window=10,
        judged_on=10,
        values={"score std": 0.01},
        numbers=(1, 7),
        meaning="The critic gives nearly the same score to everything.",
        overrides=("critic.optimizer.lr=5.0e-06",),
    )


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(RunDirectory(root=tmp_path), StopRequest())


def answer(told: Told, how: Any, severity: Severity = Severity.CRITICAL) -> None:
    on_critical(
        [finding(severity)],
        how=how,
        directory=told.directory,
        progress=cast("Progress", told),
        stop=told.stop,
        save=told.save,
    )


def test_a_run_goes_on_unless_it_is_told_otherwise_and_over_every_warning(told: Told) -> None:
    answer(told, "continue")
    answer(told, "stop", Severity.WARNING)
    answer(told, "pause", Severity.WARNING)
    assert told.order == []


def test_a_stop_saves_first_and_ends_with_the_rule_its_figures_and_the_answer(told: Told) -> None:
    with pytest.raises(HealthError) as caught:
        answer(told, "stop")
    assert told.order == ["save", "stopped"]
    assert caught.value.exit_code == 3
    assert str(caught.value).startswith("step 7: score-collapse: score std 0.01: The critic gives")
    assert "critic.optimizer.lr=5.0e-06" in str(caught.value)
    assert f"--resume {told.directory.root}" in str(caught.value)


def test_a_pause_ends_when_the_user_says_so_by_a_file_that_is_then_gone(told: Told) -> None:
    answer(told, "pause")
    assert told.order == ["save", "paused", "paused by score-collapse", "resumed"]
    assert not told.directory.resume_mark.exists()


def test_a_file_that_was_left_from_before_does_not_end_a_pause(told: Told) -> None:
    told.directory.resume_mark.touch()
    told.answer = "interrupt"
    answer(told, "pause")
    assert told.order == ["save", "paused", "paused by score-collapse"]
    assert not told.directory.resume_mark.exists()
