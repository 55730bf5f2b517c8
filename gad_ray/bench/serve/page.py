"""The measurement as a page to read, made from its figures alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gad_ray.bench.serve.tables import tables
from gad_ray.bench.tables import markdown

_HEAD = """# The endpoint under load

    gad-ray bench serve [throughput] [latency] [peers] [swaps] [overload] [--critic DIR] [--out DIR] [--docs docs/serving_load.md]

Everything below is `gad-ray serve` with a Ray cluster of its own, asked over HTTP from a process on the same machine, which takes
its share of the cores. Texts are packaged ones: half English, a quarter Chinese, a quarter code, lengths drawn evenly on a
logarithmic scale, no two prompts alike, so that nothing is spared by equal or shared text, and the cache is off. Ray's
processes run at ordinary priority (`RAY_worker_niceness=0`), as what they are compared with does.

This page is written by the command. Parts that are finished are kept and not measured again; each says when and with what it was
measured.
"""

_QUIET = 0.1
"""Share of the cores that others may use before a part begins, for its timings not to be called into question."""

_ABOUT = {
    "throughput": """A closed loop keeps the endpoint saturated; the bare forward is a process that does nothing but score the same pairs,
all sorted by length, in batches of the same budget of tokens, with as many threads, which wait as those of a replica do. They take turns, round by round, and the bare
forward's time leaves out its tokenising. It is the model as transformers loads it, one pass after the other, each with all threads. In a row of its own it computes as a replica does on a CPU: by layers whose weights are packed for oneDNN, with rows end to end in place of padding, and two passes at a time with half of the threads each. That is why a share can be above 1. Both have the environment of a replica: threads that sleep while they wait, and memory that is kept for the next pass. The share is the median over the rounds, with the lowest and the highest.
""",
    "latency": """Requests of one pair each come at random times (Poisson), whatever becomes of those before; a time counts from when the
request was to be sent. Saturation was measured just before on the same endpoint, by a closed loop.
""",
    "peers": """The same pairs, the same number under way, as many threads, the same precision, in turns. The FastAPI loop is
`gad_ray/bench/serve/reward_server.py`: one request at a time, padded, one forward pass, as OpenRLHF's reward server works; it has the environment of a replica. vLLM
serves the same backbone and head as a sequence classifier of one label, with its defaults, but without its cache of prefixes, since every round has the same texts (ours
has its own cache off); it compiles the model when it starts. The last column: median over the rounds, with the lowest and the highest.
""",
    "swaps": """`gad-ray serve --follow RUN` with two replicas. The run's critic is replaced again and again by one of several that differ
in all weights; a replica is killed (SIGKILL) at random again and again. Clients ask without pause for one to four pairs. An answer is right if it has one score for every pair, each within 1e-4 of what the version that it names gives offline. The first client is `ScoreClient`, which repeats what failed for a passing reason; the second sends everything once.
""",
    "overload": """Requests of one pair each at random times, five times as many as the endpoint answered at saturation just before, without repetition; besides, clients that repeat as `ScoreClient` does.
""",
}


def load_page(figures: Mapping[str, Any]) -> str:
    """The page, in Markdown.

    Args:
        figures: As the study gives them.
    """
    parts = [_HEAD]
    for name, (title, table) in tables(figures).items():
        parts += [f"## {title[0].upper()}{title[1:]}\n", _ABOUT[name], markdown(table)]
        parts += [f"- {line}" for line in notes(name, figures[name])]
        parts.append("")
    return "\n".join(parts).rstrip("\n") + "\n"


def notes(name: str, part: Mapping[str, Any]) -> list[str]:
    """What the table of a part does not say, a sentence a line.

    Args:
        name: Of the part.
        part: What the study has kept of it.
    """
    lines = list(_NOTES[name](part["figures"]))
    where = part["surroundings"]
    setting = part["setting"]
    versions = [f"{key} {where[key]}" for key in where if key not in ("processor", "cores", "memory_gib")]
    shown = {key: value for key, value in setting.items() if key != "critic"}
    told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in shown.items())
    lines.append(f"Setting: critic {setting['critic'][:16]}, {told}.")
    machine = f"{where['processor']}, {where['cores']:g} cores, {where['memory_gib']:g} GiB"
    lines.append(f"{part['date']}, {part['minutes']:.0f} minutes, {machine}; {', '.join(versions)}.")
    if part["busy_before"] > _QUIET:
        lines.append(
            f"**The machine was busy with other work** ({part['busy_before']:.0%} of its cores before this began): counts "
            "hold, speeds and times are not what it can do."
        )
    return lines


def _of_throughput(figures: Mapping[str, Any]) -> list[str]:
    mean = figures["tokens"] / figures["pairs"]
    return [
        f"{figures['pairs']} pairs with {figures['tokens']} tokens a round, {mean:.0f} a pair on average.",
        f"The bare forward's tokenising took {figures['bare_tokenising_s']:.2f} s a round.",
    ]


def _of_latency(figures: Mapping[str, Any]) -> list[str]:
    return [f"Saturation: {figures['saturation_per_s']:.2f} requests a second."]


def _of_peers(figures: Mapping[str, Any]) -> list[str]:
    lines = [f"{figures['pairs']} pairs with {figures['tokens']} tokens a round."]
    if not figures["missing"]:
        lines.append(
            f"The loop and vLLM both score by the last token: but for a constant, their scores are {figures['peers_gap']:.1e} "
            "apart at most."
        )
    lines += [
        f"{name} did not run: {' '.join(why.split())[:600]}" for name, why in figures["missing"].items()
    ]
    return lines


def _of_swaps(figures: Mapping[str, Any]) -> list[str]:
    back, separation = figures["back_s"], figures["least_difference"]
    seen = f"{figures['published']} new critics, {figures['seen']} of them seen in answers before the same one came again"
    gap = figures["with_retries"]["largest_gap"]
    lines = [
        f"{figures['minutes']:.1f} minutes, {seen}, {figures['kills']} replicas killed.",
        f"Two versions' scores of a pair differ by {separation:.2g} at least; right ones were off by {gap:.1e} at most.",
    ]
    if back:
        lines.append(
            f"A killed replica's successor was there as a process after {min(back):.0f} to {max(back):.0f} s."
        )
    return lines


def _of_overload(figures: Mapping[str, Any]) -> list[str]:
    retry = figures["retry_after"]
    lines = [f"Saturation: {figures['saturation_per_s']:.2f} requests a second."]
    if retry["with_retry_after"]:
        lines.append(f"Retry-After named {retry['shortest_s']} to {retry['longest_s']} s.")
    return lines


_NOTES = {
    "throughput": _of_throughput,
    "latency": _of_latency,
    "peers": _of_peers,
    "swaps": _of_swaps,
    "overload": _of_overload,
}
