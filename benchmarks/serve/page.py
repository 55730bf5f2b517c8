"""The measurement as a page to read, made from its figures alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.serve.overload import OVERLOAD
from benchmarks.serve.peers import PEERS
from benchmarks.serve.swaps import SWAPS
from benchmarks.tables import markdown
from gad_ray.bench.serve.latency import LATENCY
from gad_ray.bench.serve.study import Part, notes_of
from gad_ray.bench.serve.throughput import THROUGHPUT

PARTS: dict[str, Part] = {
    "throughput": THROUGHPUT,
    "latency": LATENCY,
    "peers": PEERS,
    "swaps": SWAPS,
    "overload": OVERLOAD,
}

_HEAD = """# The endpoint under load

    python -m benchmarks.serve [throughput] [latency] [peers] [swaps] [overload] [--critic DIR] [--out DIR] [--docs docs/serving_load.md]

Everything below is `gad-ray serve` with a Ray cluster of its own, asked over HTTP from a process on the same machine, which takes
its share of the cores. Texts are packaged ones: half English, a quarter Chinese, a quarter code, lengths drawn evenly on a
logarithmic scale, no two prompts alike, so that nothing is spared by equal or shared text, and the cache is off. Ray's
processes run at ordinary priority (`RAY_worker_niceness=0`), as what they are compared with does.

This page is written by the command. Parts that are finished are kept and not measured again; each says when and with what it was
measured.
"""

_ABOUT = {
    "throughput": """A closed loop keeps the endpoint saturated; the bare forward is a process that does nothing but score the same pairs,
all sorted by length, in batches of the same budget of tokens, with as many threads, which wait as those of a replica do. They take turns, round by round, and the bare
forward's time leaves out its tokenising. It is the model as transformers loads it, one pass after the other, each with all threads. In a row of its own it computes as a replica does on a CPU: by layers whose weights are packed for oneDNN, with rows end to end in place of padding, and two passes at a time with half of the threads each. That is why a share can be above 1. Both have the environment of a replica: threads that sleep while they wait, and memory that is kept for the next pass. The share is the median over the rounds, with the lowest and the highest.
""",
    "latency": """Requests of one pair each come at random times (Poisson), whatever becomes of those before; a time counts from when the
request was to be sent. Saturation was measured just before on the same endpoint, by a closed loop.
""",
    "peers": """The same pairs, the same number under way, as many threads, the same precision, in turns. The FastAPI loop is
`benchmarks/serve/reward_server.py`: one request at a time, padded, one forward pass, as OpenRLHF's reward server works; it has the environment of a replica. vLLM
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
    lines = [_HEAD]
    for name, part in PARTS.items():
        if name in figures:
            title = f"## {part.title[0].upper()}{part.title[1:]}\n"
            lines += [title, _ABOUT[name], markdown(part.table(figures[name]["figures"]))]
            lines += [*(f"- {line}" for line in notes_of(part, figures[name])), ""]
    return "\n".join(lines).rstrip("\n") + "\n"
