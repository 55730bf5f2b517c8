"""``gad-ray`` with a critic that counts as ready as soon as its scores are half a point apart.

The teacher's text of the tests is so easily told from a tiny policy's that the true band is jumped over. Run as a program
in place of the command line; what it starts is otherwise the real thing.
"""

from __future__ import annotations

from gad_ray.cli import main
from gad_ray.controller import progress
from gad_ray.health.conditions import Above
from gad_ray.health.signals import Signal

if __name__ == "__main__":
    progress.READY = Above(Signal.SCORE_DIFF, 0.5)
    main()
