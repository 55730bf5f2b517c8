"""What was loaded, in words, for a person who is about to start a run."""

from __future__ import annotations

from gad_ray.data.dataset import DataReport, Lengths, LoadedData
from gad_ray.data.quarantine import QuarantineReport

_SOURCES_NAMED = 5


def describe(data: LoadedData) -> list[str]:
    """One sentence a line: rows, what is held out, lengths in tokens, repetitions, and what was left out."""
    report = data.report
    return [
        f"{len(data.train)} rows to train on, of {report.quarantine.num_rows} read from {_sources(report)}",
        _heldout(len(data.heldout), report),
        f"prompts: {_lengths(report.prompt_lengths)}; teacher responses: {_lengths(report.response_lengths)}",
        *_kinds(report),
        _quarantine(report.quarantine),
    ]


def _sources(report: DataReport) -> str:
    named = ", ".join(report.sources[:_SOURCES_NAMED])
    more = len(report.sources) - _SOURCES_NAMED
    return f"{named} and {more} more" if more > 0 else named


def _heldout(num: int, report: DataReport) -> str:
    if not num:
        return "nothing is held out: the run cannot be evaluated on prompts it has not seen"
    if report.heldout_drawn:
        return f"{num} prompts held out, drawn by seed, never trained on"
    unused = (
        f"; {report.num_heldout_unused} further rows of these files are not used"
        if report.num_heldout_unused
        else ""
    )
    return f"{num} prompts held out, from files of their own{unused}"


def _lengths(lengths: Lengths) -> str:
    return f"{lengths.median} tokens in the median, {lengths.p95} at 95 %, {lengths.longest} at most"


def _kinds(report: DataReport) -> list[str]:
    kinds = (
        (report.num_repeated_prompts, "rows repeat the prompt of an earlier one"),
        (report.num_with_history, "rows have earlier turns"),
        (report.num_with_system, "rows have a system message"),
    )
    told = [f"{count} {words}" for count, words in kinds if count]
    return [", ".join(told)] if told else []


def _quarantine(quarantine: QuarantineReport) -> str:
    if not quarantine.num_quarantined:
        return "no row quarantined"
    counts = ", ".join(f"{count} × {reason}" for reason, count in quarantine.counts.items())
    return f"{quarantine.num_quarantined} rows quarantined ({counts}), see {quarantine.path}"
