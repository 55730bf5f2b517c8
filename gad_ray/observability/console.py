"""The run on the terminal: one live line, warnings above it, and the account at the end."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gad_ray.activity import current
from gad_ray.errors import printable
from gad_ray.observability.summary import RunSummary, SummaryRow

_MEDIAN_OVER = 20
"""Steps of a stage whose median time predicts the rest."""

_LONG_S = 30.0
"""From here on the live line also says what is waited for."""

_SHORT = 400
"""Characters of a text that the summary shows."""

_Shown = tuple[tuple[str, str, str, str], ...]
"""Label, metric, format and unit of what the line shows of a step."""

_IN_THE_GAME: _Shown = (
    ("rollout", "perf/rollout_tokens_per_s", ",.0f", " tok/s"),
    ("train", "perf/train_tokens_per_s", ",.0f", " tok/s"),
    ("reward", "critic/rewards/mean", ".3f", ""),
    ("d_acc", "critic/d_acc", ".3f", ""),
    ("score_diff", "critic/score_diff", ".3f", ""),
    ("staleness", "rollout/staleness", ".0f", ""),
)
_IN_FITS: Mapping[str, _Shown] = {
    "seqkd": (
        ("train", "perf/train_tokens_per_s", ",.0f", " tok/s"),
        ("cross-entropy", "actor/ce_loss", ".3f", ""),
        ("grad_norm", "actor/grad_norm_before_clip", ".3f", ""),
    ),
    "soda": (
        ("train", "perf/train_tokens_per_s", ",.0f", " tok/s"),
        ("loss", "dpo/loss", ".3f", ""),
        ("margin", "dpo/margin", ".3f", ""),
        ("accuracy", "dpo/accuracy", ".3f", ""),
        ("cross-entropy", "actor/ce_loss", ".3f", ""),
    ),
}


class StepClock:
    """Predicts how long the rest of a run takes, from the median step time of each stage.

    Args:
        stage_steps: Stage → number of its steps, in the order in which they run. Steps are numbered from 1
            over all stages.
    """

    def __init__(self, stage_steps: Mapping[str, int]) -> None:
        self._stage_steps = dict(stage_steps)
        self._seconds: dict[str, deque[float]] = {
            stage: deque(maxlen=_MEDIAN_OVER) for stage in self._stage_steps
        }

    @property
    def total_steps(self) -> int:
        """Steps of all stages together."""
        return sum(self._stage_steps.values())

    def take(self, stage_steps: Mapping[str, int]) -> None:
        """Go by other lengths of the same stages from now on."""
        self._stage_steps = dict(stage_steps)

    def observe(self, *, stage: str, seconds: float) -> None:
        """Take the wall time of one step."""
        if math.isfinite(seconds):
            self._seconds[stage].append(seconds)

    def remaining(self, *, step: int) -> float | None:
        """Seconds that the steps after ``step`` will take; None before any step was timed.

        A stage that has not begun is taken to be as slow as the latest one that has.
        """
        total = 0.0
        end = 0
        pace: float | None = None
        for stage, length in self._stage_steps.items():
            end += length
            if self._seconds[stage]:
                pace = statistics.median(self._seconds[stage])
            left = min(length, max(0, end - step))
            if left:
                if pace is None:
                    return None
                total += left * pace
        return total if pace is not None else None


class LiveLine:
    """A context manager that shows one live line, or one plain line per step where there is no terminal.

    Args:
        stage_steps: Stage → number of its steps, in order; see :class:`StepClock`.
        console: Where to write; standard output if absent.
    """

    def __init__(self, *, stage_steps: Mapping[str, int], console: Console | None = None) -> None:
        self._clock = StepClock(stage_steps)
        self._console = console or Console(highlight=False)
        self._line = Text("starting")
        self._live: Live | None = None
        self._ended = False

    def take(self, stage_steps: Mapping[str, int]) -> None:
        """Go by other lengths of the same stages from now on."""
        self._clock.take(stage_steps)

    def __enter__(self) -> Self:
        """Begin to show the line."""
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=4)
            self._live.start()
            if (teller := current()) is not None:
                teller.shown = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last line standing and give the terminal back."""
        self._ended = True
        if self._live is not None:
            if (teller := current()) is not None:
                teller.shown = False
            self._live.stop()
            self._live = None

    def step(self, *, step: int, stage: str, metrics: Mapping[str, float]) -> None:
        """Show a finished step.

        Args:
            step: Its number, from 1 over all stages.
            stage: The stage it belongs to.
            metrics: Its metrics; those that are absent are shown as a dash.
        """
        if "timing_s/step" in metrics:
            self._clock.observe(stage=stage, seconds=metrics["timing_s/step"])
        eta = _duration(self._clock.remaining(step=step))
        parts = [f"{stage} {step}/{self._clock.total_steps}", f"ETA {eta}"]
        shown = _IN_FITS.get(stage, _IN_THE_GAME)
        parts += [f"{label} {_number(metrics.get(name), spec)}{unit}" for label, name, spec, unit in shown]
        self._line = Text("  ".join(parts))
        if self._live is not None:
            self._live.refresh()
        else:
            self._print(self._line)

    def warn(self, rule: str, text: str) -> None:
        """Print a warning above the line.

        Args:
            rule: Name of the rule or check that warns.
            text: What it found and what mends it.
        """
        self._print(Text.assemble((f"! {rule}", "bold yellow"), f"  {text}"))

    def info(self, text: str) -> None:
        """Print a message above the line."""
        self._print(Text(text))

    def _print(self, text: Text) -> None:
        if (teller := current()) is not None:
            teller.heard()
        text.plain = printable(text.plain)
        # Without a terminal nobody knows its width: a line stays one line.
        self._console.print(text, soft_wrap=not self._console.is_terminal)

    def _render(self) -> Text:
        line = self._line.copy()
        teller = None if self._ended else current()
        if teller is not None and (now := teller.now()) is not None:
            what, seconds, wait = now
            line.append(f"  | {what} {seconds:.0f} s", style="dim")
            if seconds >= _LONG_S and wait:
                line.append(f", waiting {wait}", style="dim")
        line.no_wrap = True
        line.overflow = "ellipsis"
        return line


def print_summary(summary: RunSummary, console: Console | None = None) -> None:
    """Print the account of a run: the table before/after, samples, timing, and what was written.

    Long texts are shortened here; the summary's JSON keeps them whole.
    """
    out = console or Console(highlight=False)
    out.print()
    out.print(_before_and_after(summary))
    if summary.note:
        out.print(Text(summary.note))
    scored = any(sample.teacher_score is not None for sample in summary.samples)
    for number, sample in enumerate(summary.samples, start=1):
        table = Table(title=f"Sample {number}", title_justify="left", show_header=False, expand=False)
        table.add_column("who", style="bold", no_wrap=True)
        table.add_column("text", overflow="fold")
        rows = (
            ("prompt", sample.prompt, ""),
            ("teacher", sample.teacher, _number(sample.teacher_score, ".3f")),
            ("student before", sample.before, _number(sample.before_score, ".3f")),
            ("student after", sample.after, _number(sample.after_score, ".3f")),
        )
        if scored:
            table.add_column("score", justify="right", no_wrap=True)
        for who, text, score in rows:
            cells = (who, Text(_shorten(text)), score)
            table.add_row(*(cells if scored else cells[:2]))
        out.print(table)
    if scored:
        out.print(Text("Scores compare only within one prompt."))
    if summary.timing:
        spent = ", ".join(f"{part} {_duration(seconds)}" for part, seconds in summary.timing.items())
        out.print(Text(f"Time: {spent}"))
    if summary.peak_memory_gib is not None:
        out.print(Text(f"Peak memory: {summary.peak_memory_gib:.1f} GiB"))
    if summary.paths:
        out.print(Text("Written:"))
        width = max(len(label) for label, _ in summary.paths)
        for label, path in summary.paths:
            # Never wrapped: a path is there to be copied.
            out.print(Text(f"  {label:<{width}}  {path}"), soft_wrap=True)


def _before_and_after(summary: RunSummary) -> Table:
    table = Table(title=Text(f"{summary.name}: held-out prompts, before and after"), title_justify="left")
    table.add_column("measure")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    table.add_column("")
    for row in summary.rows:
        spec = f",.{row.digits}f"
        unit = f" {row.unit}" if row.unit else ""
        cells = [
            f"{_number(value, spec)}{unit if value is not None else ''}" for value in (row.before, row.after)
        ]
        table.add_row(Text(row.label), *(Text(cell) for cell in cells), _verdict(row))
    return table


def _verdict(row: SummaryRow) -> Text:
    if row.improved is None:
        return Text("")
    return Text("better", style="green") if row.improved else Text("worse", style="red")


def _number(value: float | None, spec: str) -> str:
    """A number to be read; a dash where there is none, and a true minus sign."""
    if value is None:
        return "–"
    return format(value, spec).replace("-", "−")


def _duration(seconds: float | None) -> str:
    """``m:ss`` or ``h:mm:ss``; a dash where it is not known."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _shorten(text: str) -> str:
    text = printable(text.strip())
    return text if len(text) <= _SHORT else text[: _SHORT - 2].rstrip() + " …"
