"""The study: every case is run by the command that a user would type, and kept, so that it goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults.case import Case, Row, Rows
from benchmarks.faults.evidence import Evidence
from benchmarks.faults.rows import study_rows, write_rows
from benchmarks.faults.verdict import Verdict, judge
from gad_ray.bench.process import exit_code
from gad_ray.config import load_config
from gad_ray.observability.files import write_text
from gad_ray.observability.run_dir import RunDirectory

BASE = Path(__file__).with_name("base.yaml")
"""The healthy run that faults are done to."""

_DEADLINE_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultStudy:
    """Some cases, and where they are run.

    Attributes:
        cases: The cases.
        out: Directory of everything that is written.
        base: Recipe of the healthy run.
        tell: Is told what is being done, a line at a time.
        deadline_s: Seconds after which a run is ended.
    """

    cases: Sequence[Case]
    out: Path
    base: Path = BASE
    tell: Callable[[str], None]
    deadline_s: float = _DEADLINE_S

    def run(self) -> list[Verdict]:
        """Run what is not there yet; returns all verdicts, whose evidence is also in ``faults.json``.

        Raises:
            GadError: If the data or the recipe cannot be used.
        """
        (self.out / "data").mkdir(parents=True, exist_ok=True)
        wanted = [case for case in self.cases if not self._is_done(case)]
        rows: list[Row] = []
        if wanted:
            config = load_config(str(self.base))
            rows = study_rows(config, quarantine_path=self.out / "data" / "quarantine.jsonl")
        for number, case in enumerate(wanted, start=1):
            self.tell(f"{case.name} ({number} of {len(wanted)}): {case.done}")
            self._keep(case, self._play(case, rows))
        found: list[Verdict] = []
        for case in self.cases:
            evidence = self._kept(case)
            assert evidence is not None
            found.append(judge(case, evidence))
        figures = {
            "base": self.base.name,
            "cores": len(os.sched_getaffinity(0)),
            "cases": {verdict.case.name: verdict.evidence.to_json() for verdict in found},
        }
        write_text(self.out / "faults.json", json.dumps(figures, indent=1) + "\n")
        return found

    # -- one case -------------------------------------------------------------------------------------

    def _play(self, case: Case, rows: Sequence[Row]) -> Evidence:
        """Run a case from its start; what an earlier attempt left is thrown away."""
        runs = self.out / "runs"
        root = runs / case.name
        shutil.rmtree(root, ignore_errors=True)
        log = self.out / f"{case.name}.log"
        started = time.monotonic()
        code = exit_code(self._command(case, rows), log, deadline_s=self.deadline_s)
        seconds = time.monotonic() - started
        evidence = Evidence.of_run(RunDirectory(root=root), log, exit_code=code, seconds=seconds)
        # A gigabyte a case, which nobody looks at again.
        for directory in ("exports", "checkpoints"):
            shutil.rmtree(root / directory, ignore_errors=True)
        return evidence

    def _command(self, case: Case, rows: Sequence[Row]) -> list[str]:
        program = ["gad_ray"] if case.injection is None else ["benchmarks.faults.inject", case.injection]
        changed = Rows(rows) if case.rows is None else case.rows(rows)
        name = "rows" if case.rows is None else case.name
        train = write_rows(self.out / "data" / f"{name}.jsonl", changed.train)
        data = [f"data.train={json.dumps([train])}"]
        if changed.heldout:
            heldout = write_rows(self.out / "data" / f"{name}-heldout.jsonl", changed.heldout)
            data.append(f"data.heldout={json.dumps([heldout])}")
        place = [f"name={case.name}", f"output_dir={self.out / 'runs'}"]
        return [sys.executable, "-m", *program, "train", str(self.base), *place, *data, *case.settings]

    # -- what is kept ---------------------------------------------------------------------------------

    def _keep(self, case: Case, evidence: Evidence) -> None:
        content = {"case": self._definition(case), "evidence": evidence.to_json()}
        write_text(self._path(case), json.dumps(content, indent=1) + "\n")

    def _is_done(self, case: Case) -> bool:
        """Whether there is evidence to judge by; a run that failed by itself is made again."""
        evidence = self._kept(case)
        return evidence is not None and not judge(case, evidence).failed

    def _kept(self, case: Case) -> Evidence | None:
        """The evidence of an earlier run of the same case; None if there is none, or the case was another then."""
        path = self._path(case)
        if not path.is_file():
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        return Evidence.of_json(content["evidence"]) if content["case"] == self._definition(case) else None

    def _definition(self, case: Case) -> dict[str, Any]:
        """What decides what a case's run does, but for the code."""
        return {
            "base": hashlib.sha256(self.base.read_bytes()).hexdigest(),
            "settings": list(case.settings),
            "rows": None if case.rows is None else case.rows.__name__,
            "injection": case.injection,
        }

    def _path(self, case: Case) -> Path:
        return self.out / f"{case.name}.json"
