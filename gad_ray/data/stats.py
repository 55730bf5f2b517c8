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
        *_layout(report),
        *_filtered(report),
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
        return f"held-out prompts: {num}, drawn by seed, never trained on"
    unused = (
        f"; rows of these files beyond that, not used: {report.num_heldout_unused}"
        if report.num_heldout_unused
        else ""
    )
    return f"held-out prompts: {num}, from files of their own{unused}"


def _lengths(lengths: Lengths) -> str:
    return f"{lengths.median} tokens in the median, {lengths.p95} at 95 %, {lengths.longest} at most"


def _kinds(report: DataReport) -> list[str]:
    kinds = (
        (report.num_repeated_prompts, "with the prompt of an earlier one"),
        (report.num_with_history, "with earlier turns"),
        (report.num_with_system, "with a system message"),
    )
    told = [f"{count} {words}" for count, words in kinds if count]
    return [f"of the rows to train on: {', '.join(told)}"] if told else []


def _layout(report: DataReport) -> list[str]:
    told = [f"converted, {count} rows: {name}" for name, count in report.conversions.items()]
    if report.unused_columns:
        names = ", ".join(repr(name) for name in report.unused_columns[:_SOURCES_NAMED])
        more = len(report.unused_columns) - _SOURCES_NAMED
        told.append(
            f"columns of text that are not used: {names}{f' and {more} more' if more > 0 else ''}; data.columns maps them"
        )
    return told


def _filtered(report: DataReport) -> list[str]:
    count = report.num_filtered
    return [f"outside the bounds of data.curriculum, not trained on: {count} rows"] if count else []


def _quarantine(quarantine: QuarantineReport) -> str:
    if not quarantine.num_quarantined:
        return "quarantined rows: none"
    counts = ", ".join(f"{count} × {reason}" for reason, count in quarantine.counts.items())
    return f"quarantined rows: {quarantine.num_quarantined} ({counts}), see {quarantine.path}"
