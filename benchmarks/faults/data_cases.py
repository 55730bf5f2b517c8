"""Faults of the data and of the machine."""

from __future__ import annotations

from benchmarks.faults.case import SLEEP_AT, SLEEP_S, Case
from benchmarks.faults.rows import cut_teacher, marked_teacher, shared_prompts

DATA_CASES: tuple[Case, ...] = (
    Case(
        name="teacher-cut",
        done="the teacher's texts cut to three words: length alone tells the sides apart",
        warmup=12,
        game=0,
        fitted=False,
        rows=cut_teacher,
        named_by=("length-shortcut",),
        symptoms=("critic-overconfident", "loss-saturated", "scores-too-far-apart", "extreme-scores"),
    ),
    Case(
        name="student-cut",
        done="at most 2 tokens an answer",
        warmup=8,
        game=0,
        fitted=False,
        overrides=("rollout.max_response_tokens=2",),
        named_by=("length-collapse",),
        symptoms=("critic-overconfident", "loss-saturated", "scores-too-far-apart", "extreme-scores"),
    ),
    Case(
        name="teacher-marked",
        done="' [END]' behind every text of the teacher's, as a template leaves it",
        warmup=18,
        game=0,
        fitted=False,
        rows=marked_teacher,
        named_by=("critic-overconfident",),
        symptoms=("loss-saturated", "scores-too-far-apart", "extreme-scores"),
    ),
    Case(
        name="prompts-on-both-sides",
        done="16 held-out prompts are among those trained on, under other ids",
        warmup=2,
        game=0,
        fitted=False,
        heldout=16,
        rows=shared_prompts,
        quarantined="heldout_prompt",
    ),
    Case(
        name="stalled-actor",
        done=f"the rollout of step {SLEEP_AT} sleeps for {SLEEP_S:g} s",
        warmup=8,
        game=0,
        fitted=False,
        # It is told while it is waited for, with the number of the last step.
        since=SLEEP_AT - 1,
        injection="sleeping-engine",
        named_by=("stalled",),
    ),
)
