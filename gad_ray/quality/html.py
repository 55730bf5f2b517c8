"""A report as one HTML file that loads nothing: findings with rows to look at, charts, figures.

What the data say is text and stays text: the template escapes everything, and the script makes text nodes only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gad_ray.quality.figures import Comparison, Figures, Gap, Histogram
from gad_ray.quality.report import QualityReport
from gad_ray.quality.tables import TextTable, tables_of
from gad_ray.report.html import render

_COLOURS = {"teacher": 0, "student": 1}

Chart = dict[str, Any]
"""What ``charts.js`` draws."""


def render_html(report: QualityReport, *, made_at: str) -> str:
    """The whole page.

    Args:
        report: What to show.
        made_at: When the report was made, in words.
    """
    charts = _charts(report.figures)
    return render(
        "data.html.jinja",
        {"runs": [], "sections": [{"id": "data", "charts": charts}]},
        {
            "report": report,
            "figures": report.figures,
            "tables": tables_of(report.figures),
            "drawn": [_as_table(chart) for chart in charts if chart["kind"] == "histogram"],
            "made_at": made_at,
        },
    )


def _charts(figures: Figures) -> list[Chart]:
    unit = "tokens" if figures.in_tokens else "characters"
    comparison = figures.comparison
    if comparison is None:
        return [_lengths("Teacher's answers", {"teacher": figures.answer_histogram}, unit)]
    return _both_sides(comparison, unit)


def _both_sides(comparison: Comparison, unit: str) -> list[Chart]:
    teacher, student = comparison.length_histograms
    ratio = comparison.ratio_histogram
    # The ratio's edges are powers of two: log2 of the ratio is what was counted.
    low, high = int(ratio.edges[0]), int(ratio.edges[-1])
    charts = [
        _lengths("Lengths", {"teacher": teacher, "student": student}, unit),
        _histogram(
            "Ratio of lengths",
            {"student": ratio},
            edges=[2.0**edge for edge in ratio.edges],
            caption="student's length / teacher's, share of the pairs",
            x_label="",
            ticks=[(2.0**i, f"{2**i}×" if i >= 0 else f"1/{2**-i}") for i in range(low, high + 1)],
            mark=1.0,
        ),
    ]
    kinds = (
        ("by the teacher's length", comparison.by_length),
        ("by the form of the teacher's answer", comparison.by_format),
        ("by the prompt's script", comparison.by_language),
    )
    several = [(kind, gaps) for kind, gaps in kinds if len(gaps) > 1]
    charts += [_ratio_bars(f"Length gap {kind}", gaps) for kind, gaps in several]
    charts += [
        _score_bars(f"Score gap {kind}", gaps)
        for kind, gaps in several
        if any(gap.score_gap is not None for gap in gaps)
    ]
    return charts


def _lengths(title: str, sides: dict[str, Histogram], unit: str) -> Chart:
    edges = next(iter(sides.values())).edges
    return _histogram(
        title,
        sides,
        edges=list(edges),
        caption=f"length in {unit}, share of the answers",
        x_label=unit,
    )


def _histogram(
    title: str,
    sides: dict[str, Histogram],
    *,
    edges: list[float],
    caption: str,
    x_label: str,
    ticks: Sequence[tuple[float, str]] = (),
    mark: float | None = None,
) -> Chart:
    """Histograms on the same edges, on a logarithmic axis; without ticks they stand at powers of ten."""
    return {
        "kind": "histogram",
        "title": title,
        "caption": caption,
        "x_label": x_label,
        "edges": edges,
        "ticks": list(ticks),
        "mark": mark,
        # Shares, not counts: the sides may have different numbers of answers.
        "series": [
            {
                "name": name,
                "colour": _COLOURS[name],
                "shares": [count / max(1, sum(histogram.counts)) for count in histogram.counts],
            }
            for name, histogram in sides.items()
        ],
    }


def _ratio_bars(title: str, gaps: Sequence[Gap]) -> Chart:
    bars = [(gap.bucket, gap.ratio, f"{gap.ratio:.2f}") for gap in gaps]
    return _gaps(title, bars, caption="median of student's length / teacher's", centre=1.0)


def _score_bars(title: str, gaps: Sequence[Gap]) -> Chart:
    bars = [(gap.bucket, gap.score_gap, f"{gap.score_gap:+.2f}") for gap in gaps if gap.score_gap is not None]
    return _gaps(title, bars, caption="mean of teacher's score − student's", centre=0.0)


def _gaps(title: str, bars: Sequence[tuple[str, float, str]], *, caption: str, centre: float) -> Chart:
    return {
        "kind": "gaps",
        "title": title,
        "caption": caption,
        "centre": centre,
        "bars": [{"name": name, "value": value, "text": text} for name, value, text in bars],
    }


def _as_table(chart: Chart) -> TextTable:
    """The values of a histogram, for readers without JavaScript. Those of gaps stand among the report's tables."""
    series, edges = chart["series"], chart["edges"]
    columns = zip(*(one["shares"] for one in series), strict=True)
    rows = tuple(
        (f"{low:.4g} – {high:.4g}", *(f"{share:.1%}" for share in shares))
        for low, high, shares in zip(edges, edges[1:], columns, strict=False)
        if any(shares)
    )
    return TextTable(
        title=chart["title"],
        head=(chart["caption"], *(one["name"] for one in series)),
        rows=rows,
    )
