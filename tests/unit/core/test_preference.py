import numpy as np

from gad_ray.core.preference import preference


def test_a_win_counts_whole_and_a_tie_half():
    teacher = np.asarray([1.0, 2.0, -1.0, 3.0], dtype=np.float32)
    student = np.asarray([0.0, 2.0, 0.0, 2.5], dtype=np.float32)
    # Win, tie, loss, win: 2.5 of 4.
    assert preference(teacher, student) == 0.625


def test_identical_scores_are_a_coins_toss():
    scores = np.asarray([0.0, 1e4, -3.0], dtype=np.float32)
    assert preference(scores, scores) == 0.5
