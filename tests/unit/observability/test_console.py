from __future__ import annotations

import dataclasses
import io
import itertools

import pytest
from rich.console import Console

from gad_ray.activity import Teller, activity
from gad_ray.observability.console import LiveLine, StepClock, print_summary
from gad_ray.observability.summary import RunSummary, SampleRow, SummaryRow
from tests.processes import wait_until

STEP = {
    "timing_s/step": 10.0,
    "perf/rollout_tokens_per_s": 1234.4,
    "perf/train_tokens_per_s": 210.0,
    "critic/rewards/mean": -1.88,
    "critic/d_acc": 0.947,
    "critic/score_diff": 1.81,
    "rollout/staleness": 0.0,
}


def plain() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=False, width=60, highlight=False), out


def terminal(width: int = 200) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=True, width=width, highlight=False, legacy_windows=False), out


def test_without_a_terminal_each_step_is_one_plain_line_however_narrow() -> None:
    console, out = plain()
    with LiveLine(stage_steps={"warmup": 2, "adversarial": 3}, console=console) as line:
        line.info("reading [rows]")
        line.step(step=1, stage="warmup", metrics=STEP)
        line.warn("critic-overconfident", "d_acc 0.97. Try critic.loss.temperature.value=7.0.")
        line.step(step=2, stage="warmup", metrics={})
    assert out.getvalue().splitlines() == [
        "reading [rows]",
        (
            "warmup 1/5  ETA 0:40  rollout 1,234 tok/s  train 210 tok/s  reward −1.880  d_acc 0.947  "
            "score_diff 1.810  staleness 0"
        ),
        "! critic-overconfident  d_acc 0.97. Try critic.loss.temperature.value=7.0.",
        "warmup 2/5  ETA 0:30  rollout – tok/s  train – tok/s  reward –  d_acc –  score_diff –  staleness –",
    ]
    assert "\x1b" not in out.getvalue()


def test_a_fit_shows_its_own_figures_and_no_critics() -> None:
    console, out = plain()
    metrics = {"perf/train_tokens_per_s": 210.0, "actor/ce_loss": 1.5, "dpo/loss": 0.6, "dpo/margin": -0.25}
    for stage in ("seqkd", "soda"):
        with LiveLine(stage_steps={stage: 1}, console=console) as line:
            line.step(step=1, stage=stage, metrics=metrics)
    assert out.getvalue().splitlines() == [
        "seqkd 1/1  ETA –  train 210 tok/s  cross-entropy 1.500  grad_norm –",
        "soda 1/1  ETA –  train 210 tok/s  loss 0.600  margin −0.250  accuracy –  cross-entropy 1.500",
    ]


def test_on_a_terminal_one_line_is_kept_and_warnings_stand_above_it() -> None:
    console, out = terminal()
    with LiveLine(stage_steps={"warmup": 2}, console=console) as line:
        line.step(step=1, stage="warmup", metrics=STEP)
        line.warn("critic-blind", "d_acc 0.5")
        line.step(step=2, stage="warmup", metrics=STEP)
    text = out.getvalue()
    assert "\x1b[2K" in text  # the line is rewritten in place
    assert text.index("critic-blind") < text.rindex("warmup 2/2")
    assert text.rindex("warmup 1/2") < text.rindex("warmup 2/2")
    assert text.rstrip("\x1b[?25h\n").endswith("staleness 0")


def test_a_narrow_terminal_never_breaks_the_line() -> None:
    console, out = terminal(width=30)
    with LiveLine(stage_steps={"warmup": 1}, console=console) as line:
        line.step(step=1, stage="warmup", metrics=STEP)
    assert "…" in out.getvalue()
    assert "staleness" not in out.getvalue()


def test_what_goes_on_is_shown_until_the_step_is_done() -> None:
    console, out = terminal()
    said: list[str] = []
    with (
        Teller(said.append, clock=itertools.count(0, 20).__next__) as teller,
        LiveLine(stage_steps={"warmup": 1}, console=console) as line,
    ):
        with activity("loading models"), teller.waiting(lambda: "the models (policy-0)"):
            wait_until(
                lambda: "for the models (policy-0)" in out.getvalue(), what="the line", deadline_s=60.0
            )
            assert "loading models" in out.getvalue()
        line.step(step=1, stage="warmup", metrics=STEP)
        out.seek(0)
        out.truncate()
        line.info("done")
    assert "loading models" not in out.getvalue()
    # The line shows it: nothing is said besides.
    assert said == []


def test_what_a_model_or_an_endpoint_says_does_not_steer_the_terminal() -> None:
    console, out = plain()
    with LiveLine(stage_steps={"warmup": 1}, console=console) as line:
        line.warn("endpoint", "it says \x1b]0;owned\x07")
    sample = dataclasses.replace(SUMMARY.samples[0], after="\x1b[2Jgone")
    print_summary(dataclasses.replace(SUMMARY, samples=(sample,)), console)
    assert "\x1b" not in out.getvalue()
    assert "\x07" not in out.getvalue()
    assert "it says \\x1b]0;owned" in out.getvalue()


def test_the_terminal_is_given_back_when_the_run_fails() -> None:
    console, out = terminal()
    with pytest.raises(RuntimeError), LiveLine(stage_steps={"warmup": 1}, console=console):
        raise RuntimeError
    assert out.getvalue().rstrip().endswith("\x1b[?25h")  # the cursor is shown again


def test_the_remaining_time_counts_each_stage_at_its_own_pace() -> None:
    clock = StepClock({"warmup": 4, "adversarial": 10})
    assert clock.remaining(step=0) is None
    for seconds in (1.0, 100.0, 2.0, float("nan")):
        clock.observe(stage="warmup", seconds=seconds)
    assert clock.remaining(step=3) == 1 * 2.0 + 10 * 2.0  # the median; the game is taken to be as slow
    clock.observe(stage="adversarial", seconds=5.0)
    assert clock.remaining(step=5) == 9 * 5.0
    assert clock.remaining(step=14) == 0.0


def test_a_run_resumed_in_its_second_stage_predicts_from_that_stage() -> None:
    clock = StepClock({"warmup": 4, "adversarial": 10})
    clock.observe(stage="adversarial", seconds=3.0)
    assert clock.remaining(step=13) == 3.0


SUMMARY = RunSummary(
    name="game",
    rows=(
        SummaryRow(label="teacher nll", before=2.5, after=2.25, better="lower", unit="nats"),
        SummaryRow(label="eval/d_acc", before=0.5, after=0.4, better="higher"),
        SummaryRow(label="response length", before=None, after=81.6, unit="tokens", digits=0),
    ),
    samples=(
        SampleRow(
            prompt="Say [red]hello[/red] and [/nothing]",
            teacher="T" * 1000,
            before="before text",
            after="after text",
            teacher_score=1.5,
            before_score=-1.25,
            after_score=None,
        ),
    ),
    paths=(("policy", "/very/long/" + "path/" * 30 + "policy"), ("metrics", "runs/game/metrics.jsonl")),
    timing={"rollout": 61.6, "critic": 3725.0},
    peak_memory_gib=3.21,
)


def test_the_summary_shows_the_table_the_samples_and_unbroken_paths() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=False, width=100, highlight=False)
    print_summary(SUMMARY, console)
    lines = out.getvalue().splitlines()

    def line_with(*words: str) -> str:
        return next(line for line in lines if all(word in line for word in words))

    assert line_with("teacher nll", "2.500 nats", "2.250 nats", "better")
    assert line_with("eval/d_acc", "0.500", "0.400", "worse")
    length = line_with("response length", "–", "82 tokens")
    assert "better" not in length
    assert "worse" not in length
    assert line_with("prompt", "Say [red]hello[/red] and [/nothing]")
    assert line_with("student before", "before text", "−1.250")
    assert line_with("student after", "after text", "–")
    assert "Time: rollout 1:02, critic 1:02:05" in lines
    assert "Peak memory: 3.2 GiB" in lines
    written = lines.index("Written:")
    assert lines[written + 1 :] == [f"  policy   {SUMMARY.paths[0][1]}", "  metrics  runs/game/metrics.jsonl"]


def test_samples_that_no_critic_has_scored_are_shown_without_a_column_of_scores() -> None:
    out = io.StringIO()
    plain_sample = dataclasses.replace(SUMMARY.samples[0], teacher_score=None, before_score=None)
    summary = dataclasses.replace(SUMMARY, samples=(plain_sample,), note="Before: the base model.")
    print_summary(summary, Console(file=out, force_terminal=False, width=100, highlight=False))
    lines = out.getvalue().splitlines()
    assert "Before: the base model." in lines
    assert "Scores compare" not in out.getvalue()
    (row,) = [line for line in lines if "student after" in line]
    assert row.count("│") == 3


def test_long_texts_are_shortened_on_the_screen() -> None:
    out = io.StringIO()
    print_summary(SUMMARY, Console(file=out, force_terminal=False, width=100, highlight=False))
    assert 300 < out.getvalue().count("T") < 450
    assert "T …" in out.getvalue()


def test_a_run_without_samples_or_measurements_still_has_an_account() -> None:
    out = io.StringIO()
    empty = RunSummary(name="game", rows=(), samples=(), paths=())
    print_summary(empty, Console(file=out, force_terminal=False, width=100))
    assert "game: held-out prompts" in out.getvalue()
    assert "Scores compare" not in out.getvalue()
