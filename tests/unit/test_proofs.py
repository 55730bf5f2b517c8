"""That the tests which docs/proofs.md names are there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "docs" / "proofs.md").read_text(encoding="utf-8")


def test_every_file_and_every_test_that_the_page_names_exists() -> None:
    files = {path.relative_to(TESTS).as_posix(): path for path in TESTS.rglob("*.py")}
    named = re.findall(r"([\w/]*test_\w+\.py|variants\.py)(?:::(test_\w+))?", PAGE)
    assert len(named) > 30
    for file, test in named:
        homes = [
            path for name, path in files.items() if f"/{name}".endswith(f"/{file.removeprefix('tests/')}")
        ]
        assert homes, f"{file} is not there"
        assert not test or any(f"def {test}(" in path.read_text(encoding="utf-8") for path in homes), test
    everything = "".join(path.read_text(encoding="utf-8") for path in files.values())
    for test in re.findall(r"`(test_\w+)`", PAGE):
        assert f"def {test}(" in everything, test
