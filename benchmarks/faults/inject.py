"""``python -m benchmarks.faults.inject INJECTION …``: the ordinary command line, with one fault in its processes."""

from __future__ import annotations

import runpy
import sys

from benchmarks.faults.injections import INJECTIONS

if __name__ == "__main__":
    _, injection, *arguments = sys.argv
    INJECTIONS[injection]()
    sys.argv = ["gad-ray", *arguments]
    runpy.run_module("gad_ray", run_name="__main__")
