from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gad_ray.observability.metrics import METRICS
from gad_ray.report.catalogue import NOT_DRAWN, SECTIONS
from gad_ray.report.curves import MAX_POINTS, curve_sections, describe, number, run_header, thinned
from gad_ray.report.view import load_view
from tests.unit.report.runs import add_finding, append, make_run, step_row


def charts_of(sections: list[dict]) -> dict[str, dict]:
    return {chart["title"]: chart for section in sections for chart in section["charts"]}


def test_every_registered_metric_is_drawn_once_or_more(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", steps=0)
    append(directory.metrics_jsonl, [step_row(1, **dict.fromkeys(METRICS, 1.0))])
    charts = charts_of(curve_sections([load_view(directory.root)])).values()
    lines = {line["name"] for chart in charts for line in chart["lines"]}
    around = {end for area in (area for chart in charts for area in chart["areas"]) for end in area["ends"]}
    timing = {name for name in METRICS if name.startswith("timing_s/")}
    assert set(METRICS) - lines - around - NOT_DRAWN == timing, "times are stacked"


def test_charts_name_only_metrics_that_there_are() -> None:
    named = {name for section in SECTIONS for chart in section.charts for name in chart.metrics}
    named |= {end for section in SECTIONS for chart in section.charts for span in chart.spans for end in span}
    assert named <= set(METRICS)


def test_a_metric_that_no_chart_names_is_drawn_by_itself(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", steps=2)
    append(directory.metrics_jsonl, [step_row(3, **{"my/own": 7.0})])
    (other,) = [s for s in curve_sections([load_view(directory.root)]) if s["id"] == "other"]
    (chart,) = other["charts"]
    assert [(line["name"], line["x"], line["y"]) for line in chart["lines"]] == [("my/own", [3], [7.0])]


def test_a_confidence_interval_is_drawn_around_its_curve(tmp_path: Path) -> None:
    sections = curve_sections([load_view(make_run(tmp_path / "run").root)])
    (area,) = charts_of(sections)["Teacher preferred on held-out prompts"]["areas"]
    assert area["label"] == "95 % interval"
    assert (area["x"], area["low"], area["high"]) == ([4, 8, 12], [0.7] * 3, [0.9] * 3)
    assert "other" not in {section["id"] for section in sections}, "the ends are no curves of their own"


def test_the_smallest_and_the_largest_score_frame_the_mean(tmp_path: Path) -> None:
    chart = charts_of(curve_sections([load_view(make_run(tmp_path / "run").root)]))["Scores of both sides"]
    (area,) = chart["areas"]
    assert (area["low"], area["high"]) == ([1.0] * 12, [2.0] * 12)


def test_an_end_of_a_spread_whose_other_end_is_missing_is_a_curve_of_its_own(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", steps=0)
    append(
        directory.metrics_jsonl, [step_row(1, **{"response_length/mean": 5.0, "response_length/max": 9.0})]
    )
    chart = charts_of(curve_sections([load_view(directory.root)]))["Response length"]
    assert [line["name"] for line in chart["lines"]] == ["response_length/mean", "response_length/max"]
    assert chart["areas"] == []


def test_every_curve_of_compared_runs_has_a_chart(tmp_path: Path) -> None:
    view = load_view(make_run(tmp_path / "run").root)
    titles = set(charts_of(curve_sections([view, view])))
    assert titles == set(view.metrics) - {"eval/d_acc_low", "eval/d_acc_high"}, "intervals are areas"


def test_the_target_band_of_the_warm_up_holds_for_the_warm_up(tmp_path: Path) -> None:
    chart = charts_of(curve_sections([load_view(make_run(tmp_path / "run").root)]))["Teacher preferred"]
    assert [(band["low"], band["high"], band["stages"]) for band in chart["bands"]] == [
        (0.65, 0.85, ["warmup"]),
        (0.85, 0.95, ["warmup"]),
    ]


def test_runs_that_are_compared_share_a_chart_for_every_metric(tmp_path: Path) -> None:
    views = [load_view(make_run(tmp_path / name, steps=steps).root) for name, steps in (("a", 12), ("b", 6))]
    charts = charts_of(curve_sections(views))
    lines = charts["critic/score_diff"]["lines"]
    assert [(line["run"], line["colour"], line["x"][-1]) for line in lines] == [(0, 0, 12), (1, 1, 6)]
    assert charts["critic/d_acc"]["bands"] == [], "the stages of the runs are at different steps"


def test_marks_and_stages_come_with_the_run(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    add_finding(directory, 3)
    header = run_header(load_view(directory.root), "run")
    assert header["steps"] == [1, 12]
    assert header["stages"][1] == {"name": "adversarial", "first": 5, "last": 12}
    assert header["events"] == [
        {"step": 3, "kind": "finding", "severity": "warning", "label": "length-shortcut"}
    ]


@given(
    st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=400),
    st.integers(10, 60),
)
def test_thinning_keeps_the_ends_the_extremes_and_a_gap(values: list[float], limit: int) -> None:
    given_values = np.asarray(values)
    kept = thinned(given_values, limit)
    assert len(kept) <= max(limit, 5)
    assert (np.diff(kept) > 0).all()
    assert (kept[0], kept[-1]) == (0, len(values) - 1)
    if np.isfinite(given_values).any():
        assert np.nanmin(given_values[kept]) == np.nanmin(given_values)
        assert np.nanmax(given_values[kept]) == np.nanmax(given_values)
    assert np.isnan(given_values[kept]).any() == np.isnan(given_values).any()


def test_a_long_run_is_drawn_with_a_bounded_number_of_points_and_its_outlier(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", steps=0)
    rows = [step_row(step, **{"critic/d_loss": 0.1}) for step in range(1, 3501)]
    rows[1234]["critic/d_loss"] = 55.0
    append(directory.metrics_jsonl, rows)
    chart = charts_of(curve_sections([load_view(directory.root)]))["Discriminator loss"]
    for line in chart["lines"]:
        assert len(line["x"]) <= 2 * MAX_POINTS
        assert line["x"] == chart["lines"][0]["x"], "a cursor finds a value of every curve"
    assert max(chart["lines"][0]["y"]) == 55.0


def test_numbers_have_six_digits_and_no_infinity() -> None:
    assert number(0.123456789) == 0.123457
    assert number(float("inf")) is None
    assert number(None) is None


def test_a_metric_is_described_with_its_unit() -> None:
    assert describe("actor/kl_loss").endswith("(nats)")
    assert "does not know" in describe("my/own")
