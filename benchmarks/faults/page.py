"""The study as a page to read, made from its verdicts alone."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.faults.catalogue import CASES
from benchmarks.faults.tables import fault_table, healthy_table, rule_table
from benchmarks.faults.verdict import Verdict
from benchmarks.tables import markdown

SOON = 20
"""Steps within which a fault should be named."""

_HEAD = """# What the health rules are worth: injected faults and healthy runs

    python -m benchmarks.faults [CASE …] [--out DIR] [--docs docs/health_faults.md]

Every line below is a real `gad-ray train`: Ray, all actors, SmolLM2-135M-Instruct as student and critic (adapters of rank 16
on both), the packaged data, 3 prompts × 4 responses of at most 20 tokens a step, sampled in float32 and trained in bfloat16.
The warm-up fits the policy to the teacher's text; where a fault is the critic's or the data's it stands still there, so that the
sides stay apart (`fitted` of a case). Apart from that the sick runs are this healthy one with one thing changed: a setting, the data, or, where neither can express it because the system does not
allow it, something inside one process (`benchmarks/faults/injections.py`; the code of a run has no hook for it). The
verdict is read from the run's own `events.jsonl`, its error and its quarantine. A fault counts as named by the rules that
say what is wrong; other rules may be right beside them, since what they say holds of such a run (symptoms); whatever else
fires is a false alarm, in a sick run too. Which rule may name what was written down with the case:
`benchmarks/faults/*_cases.py`.

This page is written by the command. Finished cases are kept and not run again.
"""


_OF_RULES = """`names the fault`: of the faults that it may name, in how many it fired, first or not. `false alarm`: of all runs in
which it neither names the fault nor is a symptom, healthy ones included.
"""


def study_page(verdicts: Sequence[Verdict], *, num_cores: int) -> str:
    """The page, in Markdown.

    Args:
        verdicts: On all cases of the study.
        num_cores: Of the machine that they were run on.
    """
    sick = [verdict for verdict in verdicts if not verdict.case.healthy]
    healthy = [verdict for verdict in verdicts if verdict.case.healthy]
    left_out = sorted(set(CASES) - {verdict.case.name for verdict in verdicts})
    minutes = sum(verdict.evidence.seconds for verdict in verdicts) / 60
    parts = [
        _HEAD,
        "## In short\n",
        *(f"- {line}" for line in summary(verdicts)),
        f"- {len(verdicts)} runs, {minutes:.0f} minutes together, on {num_cores} cores.",
        *([f"- Cases that were not run: {', '.join(left_out)}."] if left_out else []),
        "",
    ]
    if sick:
        parts += [
            "## Faults\n",
            "Steps are counted from the first in which the fault can tell; 0 is before any. (!) marks severity critical.\n",
            markdown(fault_table(verdicts)),
        ]
    if healthy:
        parts += ["## Healthy runs\n", markdown(healthy_table(verdicts))]
    parts += [
        "## Rules\n",
        _OF_RULES,
        markdown(rule_table(verdicts)),
    ]
    return "\n".join(parts)


def summary(verdicts: Sequence[Verdict]) -> list[str]:
    """What the study comes to, a sentence a line."""
    sick = [verdict for verdict in verdicts if not verdict.case.healthy]
    healthy = [verdict for verdict in verdicts if verdict.case.healthy]
    soon = [verdict for verdict in sick if verdict.after is not None and verdict.after <= SOON]
    lines = [f"{len(soon)} of {len(sick)} faults were named within {SOON} steps." if sick else ""]
    late = [verdict.case.name for verdict in sick if verdict not in soon]
    if late:
        lines.append(f"Not named within {SOON} steps: {', '.join(late)}.")
    if healthy:
        critical = [v for v in healthy if any(rule in v.critical for rule in v.false_alarms)]
        alarmed = [v for v in healthy if v.false_alarms]
        lines.append(
            f"Of {len(healthy)} healthy runs {len(critical)} had an alarm of severity critical, {len(alarmed)} any at all."
        )
    failed = [verdict.case.name for verdict in verdicts if verdict.failed]
    if failed:
        lines.append(f"Ended in another way than the fault's: {', '.join(failed)}.")
    return [line for line in lines if line]
