"""The tables of the measurement, one for each part, from its figures alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Table = list[list[str]]
"""Rows of text, the head first."""

_NONE = "–"


def tables(figures: Mapping[str, Any]) -> dict[str, tuple[str, Table]]:
    """Part → title and table, of the parts that there are.

    Args:
        figures: As the study gives them.
    """
    makers = {
        "throughput": ("throughput at saturation", _throughput),
        "latency": ("latency at 70 % of saturation", _latency),
        "peers": ("side by side", _peers),
        "swaps": ("swaps and lost replicas", _swaps),
        "overload": ("five times too much", _overload),
    }
    return {
        name: (title, make(figures[name]["figures"]))
        for name, (title, make) in makers.items()
        if name in figures
    }


def _throughput(figures: Mapping[str, Any]) -> Table:
    rows = [["way", "pairs/s", "tokens/s", "share of bare forward", "largest score difference"]]
    for name, way in figures["ways"].items():
        rows.append(
            [
                name,
                f"{way['pairs_per_s']:.2f}",
                f"{way['tokens_per_s']:.0f}",
                _range(way["share"]) if "share" in way else _NONE,
                f"{way['score_gap']:.1e}" if "score_gap" in way else _NONE,
            ]
        )
    return rows


def _peers(figures: Mapping[str, Any]) -> Table:
    rows = [["server", "pairs/s", "tokens/s", "ours is so many times as fast"]]
    for name, way in figures["ways"].items():
        rows.append(
            [
                name,
                f"{way['pairs_per_s']:.2f}",
                f"{way['tokens_per_s']:.0f}",
                _range(way["ours_is_faster"]),
            ]
        )
    rows += [[name, "did not run", _NONE, _NONE] for name in figures["missing"]]
    return rows


def _latency(figures: Mapping[str, Any]) -> Table:
    head = ["requests", "a second", "answered", "p50 ms", "p90 ms", "p99 ms", "longest ms"]
    answered, count = figures["statuses"].get("200", 0), figures["requests"]
    return [
        head,
        ["one after the other, idle", _NONE, _NONE, *_times(figures["alone_ms"])],
        ["at random", f"{figures['per_s']:.2f}", f"{answered} of {count}", *_times(figures["latency_ms"])],
    ]


def _swaps(figures: Mapping[str, Any]) -> Table:
    clients = [figures["with_retries"], figures["without_retries"]]
    rows = [["what", "client with retries", "client without"]]
    for title, name in (
        ("requests", "requests"),
        ("answered with scores", "answered"),
        ("wrong scores for the named version", "wrong"),
        ("of a version that was never served", "unknown_version"),
        ("lost", "lost"),
        ("of these ended in 5xx", "server_errors"),
    ):
        rows.append([title, *(str(client[name]) for client in clients)])
    rows.append(["attempts by status", *(_counts(client["attempts"]) for client in clients)])
    rows.append(["p50, p99, longest ms", *(_three(client["latency_ms"]) for client in clients)])
    return rows


def _overload(figures: Mapping[str, Any]) -> Table:
    polite, retry = figures["polite"], figures["retry_after"]
    rows = [
        ["what", "figure"],
        ["requests", f"{figures['requests']} at {figures['per_s']:.1f} a second"],
        ["statuses", _counts(figures["statuses"])],
        ["answered, as a share of saturation", f"{figures['answered_share_of_saturation']:.2f}"],
        ["accepted: p50, p99, longest ms", _three(figures["accepted_ms"])],
        ["bound: the request's time, ms", _number(figures["bound_ms"])],
        ["refused: p50, p99, longest ms", _three(figures["refused_ms"])],
        ["refusals with Retry-After", f"{retry['with_retry_after']} of {retry['refused']}"],
        ["clients with retries: answered, given up", f"{polite['answered']}, {polite['given_up']}"],
        ["their repetitions that came too early", _early(polite)],
        [
            "saturation after, requests/s",
            f"{figures['saturation_after_per_s']:.2f} (before {figures['saturation_per_s']:.2f})",
        ],
    ]
    for name, seen in figures["memory_mib"].items():
        told = f"{seen['before']:.0f}, {seen['peak']:.0f}, {seen['after']:.0f}"
        rows.append([f"memory of {name}: before, peak, after, MiB", told])
    return rows


def _early(polite: Mapping[str, Any]) -> str:
    return f"{polite['repeated_too_early']} of {polite['repeated_after_refusal']}"


def _times(latency: Mapping[str, Any]) -> list[str]:
    return [_number(latency[name]) for name in ("p50", "p90", "p99", "max")]


def _three(latency: Mapping[str, Any]) -> str:
    return ", ".join(_number(latency[name]) for name in ("p50", "p99", "max"))


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items())


def _range(spread: Mapping[str, float]) -> str:
    return f"{spread['median']:.2f} ({spread['low']:.2f} to {spread['high']:.2f})"


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.0f}"
