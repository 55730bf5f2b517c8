"""A report as one HTML file that loads nothing: figures, charts, findings with rows to look at.

What the data say is text and stays text: the template escapes everything but the charts, which hold none of it.
"""

from __future__ import annotations

from importlib import resources

import jinja2
from markupsafe import Markup

from gad_ray import __version__
from gad_ray.quality.charts import bar_chart, length_chart, ratio_chart
from gad_ray.quality.figures import Comparison, Figures, Gap
from gad_ray.quality.report import QualityReport
from gad_ray.quality.tables import tables_of


def render_html(report: QualityReport, *, made_at: str) -> str:
    """The whole page.

    Args:
        report: What to show.
        made_at: When the report was made, in words.
    """
    text = (resources.files("gad_ray.quality") / "templates" / "report.html.jinja").read_text(
        encoding="utf-8"
    )
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text).render(
        report=report,
        figures=report.figures,
        tables=tables_of(report.figures),
        charts=_charts(report.figures),
        made_at=made_at,
        version=__version__,
    )


def _charts(figures: Figures) -> list[tuple[str, Markup]]:
    """Title and SVG of each chart. The SVG escapes its own labels, so it is markup."""
    unit = "tokens" if figures.in_tokens else "characters"
    comparison = figures.comparison
    if comparison is None:
        charts = [
            ("Teacher's answers", length_chart([("teacher", "teacher", figures.answer_histogram)], unit=unit))
        ]
    else:
        charts = _both_sides(comparison, unit)
    return [(title, Markup(svg)) for title, svg in charts]  # noqa: S704 - made here, of escaped labels


def _both_sides(comparison: Comparison, unit: str) -> list[tuple[str, str]]:
    teacher, student = comparison.length_histograms
    charts = [
        (
            "Lengths",
            length_chart([("teacher", "teacher", teacher), ("student", "student", student)], unit=unit),
        ),
        ("Ratio of lengths", ratio_chart(comparison.ratio_histogram)),
    ]
    kinds = (
        ("by the teacher's length", comparison.by_length),
        ("by the form of the teacher's answer", comparison.by_format),
        ("by the prompt's script", comparison.by_language),
    )
    charts += [(f"Length gap {kind}", _ratio_bars(gaps)) for kind, gaps in kinds if len(gaps) > 1]
    charts += [
        (f"Score gap {kind}", _score_bars(gaps))
        for kind, gaps in kinds
        if len(gaps) > 1 and any(gap.score_gap is not None for gap in gaps)
    ]
    return charts


def _ratio_bars(gaps: tuple[Gap, ...]) -> str:
    bars = [(gap.bucket, gap.ratio) for gap in gaps]
    return bar_chart(bars, label="median of student's length / teacher's", centre=1.0, form="{:.2f}")


def _score_bars(gaps: tuple[Gap, ...]) -> str:
    bars = [(gap.bucket, gap.score_gap) for gap in gaps if gap.score_gap is not None]
    return bar_chart(bars, label="mean of teacher's score − student's", centre=0.0, form="{:+.2f}")
