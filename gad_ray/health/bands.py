"""Where the figures of a healthy critic lie at the end of its warm-up, by the field's notes: (low, high)."""

from __future__ import annotations

D_ACC = (0.65, 0.85)
D_ACC_LIMIT = 0.95
"""Up to here it is healthy above the band as well, while nothing is saturated."""

SCORE_DIFF = (1.0, 5.0)
GRAD_NORM = (0.3, 5.0)
SATURATED = 0.98
"""Mean sigmoid(d / τ) from which on a loss teaches nothing any more."""
