"""Small charts as inline SVG: no script, no network, and their colours come from the page's style sheet.

Nothing that data say is drawn: titles and labels are the report's own, and escaped all the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from gad_ray.quality.figures import Histogram

_WIDTH, _HEIGHT = 640, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 20, 10, 40


def length_chart(series: Sequence[tuple[str, str, Histogram]], *, unit: str) -> str:
    """Histograms of lengths on a logarithmic axis, laid over each other.

    Args:
        series: Name, CSS class and histogram of each; all on the same edges.
        unit: Of the lengths.
    """
    edges = series[0][2].edges
    ticks = [10.0**power for power in range(int(math.log10(edges[-1])) + 1)]
    return _chart(
        series,
        position=lambda value: math.log(value / edges[0]) / math.log(edges[-1] / edges[0]),
        ticks=[(tick, f"{tick:,.0f}") for tick in ticks if tick <= edges[-1]],
        label=f"length in {unit}",
    )


def ratio_chart(histogram: Histogram) -> str:
    """The histogram of log2 of student's length / teacher's."""
    low, high = histogram.edges[0], histogram.edges[-1]
    ticks = [(float(i), f"{2**i}×" if i >= 0 else f"1/{2**-i}") for i in range(int(low), int(high) + 1)]
    return _chart(
        [("", "student", histogram)],
        position=lambda value: (value - low) / (high - low),
        ticks=ticks,
        label="student's length / teacher's",
        mark=0.0,
    )


def _chart(
    series: Sequence[tuple[str, str, Histogram]],
    *,
    position: Callable[[float], float],
    ticks: Sequence[tuple[float, str]],
    label: str,
    mark: float | None = None,
) -> str:
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(value: float) -> float:
        return _LEFT + width * position(value)

    # Shares, not counts: the sides may have different numbers of answers.
    shares = [[count / max(1, sum(h.counts)) for count in h.counts] for _, _, h in series]
    top = max((share for column in shares for share in column), default=0.0) or 1.0
    base = _TOP + height
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">']
    for (name, kind, histogram), column in zip(series, shares, strict=True):
        bars = [
            f'<rect x="{x(left):.1f}" width="{max(0.5, x(right) - x(left) - 0.5):.1f}" '
            f'y="{base - height * share / top:.1f}" height="{height * share / top:.1f}">'
            f"<title>{escape(name)} {share:.1%}</title></rect>"
            for left, right, share in zip(histogram.edges, histogram.edges[1:], column, strict=False)
            if share
        ]
        parts.append(f'<g class="bar {escape(kind)}">{"".join(bars)}</g>')
    if mark is not None:
        parts.append(f'<line class="mark" x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="{_TOP}" y2="{base}"/>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>')
    parts += [
        f'<text x="{x(value):.1f}" y="{base + 16}" text-anchor="middle">{escape(text)}</text>'
        for value, text in ticks
    ]
    parts.append(f'<text x="{_LEFT - 6}" y="{_TOP + 8}" text-anchor="end">{top:.0%}</text>')
    parts.append(
        f'<text x="{_LEFT + width / 2}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(label)}</text>'
    )
    return "".join([*parts, "</svg>"])


def bar_chart(bars: Sequence[tuple[str, float]], *, label: str, centre: float, form: str) -> str:
    """Horizontal bars that begin at a centre.

    Args:
        bars: Name and value of each.
        label: What the values are.
        centre: Where bars begin: 1 for a ratio, 0 for a difference.
        form: How a value is written, as for ``str.format``.
    """
    row, left, right = 24, 160, 70
    reach = max((abs(value - centre) for _, value in bars), default=0.0) or 1.0
    low = centre - reach if any(value < centre for _, value in bars) else centre
    high = centre + reach if any(value > centre for _, value in bars) else centre
    span = (high - low) or 1.0
    height = row * len(bars) + 26

    def x(value: float) -> float:
        return left + (_WIDTH - left - right) * (value - low) / span

    parts = [f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label)}">']
    for i, (name, value) in enumerate(bars):
        y = row * i + 4
        start, end = sorted((x(centre), x(value)))
        parts.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>')
        parts.append(
            f'<g class="bar student"><rect x="{start:.1f}" y="{y}" width="{max(1.0, end - start):.1f}" height="15"/></g>'
        )
        parts.append(f'<text x="{end + 6:.1f}" y="{y + 12}">{escape(form.format(value))}</text>')
    axis = row * len(bars) + 2
    parts.append(f'<line class="axis" x1="{x(centre):.1f}" x2="{x(centre):.1f}" y1="0" y2="{axis}"/>')
    parts.append(f'<text x="{_WIDTH / 2}" y="{height - 6}" text-anchor="middle">{escape(label)}</text>')
    return "".join([*parts, "</svg>"])
