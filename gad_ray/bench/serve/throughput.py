"""How much of a bare forward's speed is left behind HTTP, and who is faster: our endpoint, a plain loop, vLLM."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from gad_ray.bench.serve.bare import BareForward
from gad_ray.bench.serve.contest import (
    Scored,
    Way,
    saturating,
    score_gap,
    score_gap_but_constant,
    shares,
    speeds,
    take_turns,
)
from gad_ray.bench.serve.critics import as_classifier
from gad_ray.bench.serve.servers import Command, Server, endpoint, reward_server, vllm_server
from gad_ray.bench.serve.setting import Setting
from gad_ray.bench.serve.shapes import ClassifyShape, OwnShape, RewardShape, Shape, requests_for
from gad_ray.bench.serve.texts import draw_pairs
from gad_ray.errors import GadError
from gad_ray.models.pairs import Pair

BARE = "bare forward"
_AS_SERVED = f"{BARE}, as a replica makes it"
SHORTEST = 4
_MODEL = "critic"


def measure_throughput(setting: Setting) -> dict[str, Any]:
    """The endpoint at saturation beside a bare forward, in turns over the same pairs.

    Raises:
        GadError: If one of them fails.
    """
    pairs = draw_pairs(setting.pairs, seed=setting.seed, shortest=SHORTEST, longest=setting.longest)
    command = endpoint(critic=setting.critic, threads=setting.threads, batch_tokens=setting.batch_tokens)
    with (
        _bare(setting, pairs) as bare,
        command.running(setting.out / "throughput-endpoint.log") as server,
    ):
        tokenising: list[float] = []

        def score_bare(*, as_served: bool) -> Scored:
            found = bare.round(as_served=as_served)
            tokenising.append(float(found["tokenising_s"]))
            return Scored(float(found["seconds"]), found["scores"])

        ways: dict[str, Way] = {
            BARE: partial(score_bare, as_served=False),
            _AS_SERVED: partial(score_bare, as_served=True),
        }
        ways |= _ways(server, OwnShape(), pairs, setting)
        played = take_turns(ways, rounds=setting.rounds, tell=setting.tell)
    figures = speeds(played, pairs=len(pairs), tokens=bare.tokens)
    for name in ways:
        if name != BARE:
            figures[name]["share"] = shares(played, name, of=BARE)
            figures[name]["score_gap"] = score_gap(played, name, of=BARE)
    return {
        "pairs": len(pairs),
        "tokens": bare.tokens,
        "bare_tokenising_s": sorted(tokenising)[len(tokenising) // 2],
        "ways": figures,
    }


def measure_peers(setting: Setting) -> dict[str, Any]:
    """The endpoint beside a plain FastAPI loop and vLLM, in turns over the same pairs.

    Raises:
        GadError: If our endpoint or the plain loop fails. If vLLM does, the figures say why it is not among them.
    """
    pairs = draw_pairs(setting.pairs, seed=setting.seed + 1, shortest=SHORTEST, longest=setting.longest)
    chat = setting.chat
    missing: dict[str, str] = {}
    ways: dict[str, Way] = {}
    own = endpoint(critic=setting.critic, threads=setting.threads, batch_tokens=setting.batch_tokens)
    entrants: list[tuple[Command, Shape]] = [
        (own, OwnShape()),
        (reward_server(setting.critic, threads=setting.threads), RewardShape(chat)),
    ]
    with ExitStack() as running:
        for number, (command, shape) in enumerate(entrants):
            server = running.enter_context(command.running(setting.out / f"peers-{number}.log"))
            ways |= _named(server, shape, pairs, setting)
        try:
            server = running.enter_context(_vllm(setting).running(setting.out / "peers-vllm.log"))
            _try(server, ClassifyShape(chat, _MODEL), pairs)
            ways |= _named(server, ClassifyShape(chat, _MODEL), pairs, setting)
        except GadError as error:
            missing["vLLM"] = str(error)
            setting.tell(f"vLLM is not among them: {error}")
        played = take_turns(ways, rounds=setting.rounds, tell=setting.tell)
    tokens = _count_tokens(setting, pairs)
    figures = speeds(played, pairs=len(pairs), tokens=tokens)
    for name, row in figures.items():
        first = f"{own.name}, {name.partition(', ')[2]}"
        row["ours_is_faster"] = shares(played, first, of=name)
    # Ours are by the critic's own pooling; these two are by the last token, and have to be the same.
    loop, *others = [name for name in figures if not name.startswith(own.name)]
    gaps = [score_gap_but_constant(played, name, of=loop) for name in others]
    return {
        "pairs": len(pairs),
        "tokens": tokens,
        "ways": figures,
        "missing": missing,
        "peers_gap": max(gaps, default=0.0),
    }


def _bare(setting: Setting, pairs: Sequence[Pair]) -> Any:
    return BareForward.running(
        setting.critic,
        pairs,
        threads=setting.threads,
        batch_tokens=setting.batch_tokens,
        out=setting.out,
    )


def _ways(server: Server, shape: Shape, pairs: Sequence[Pair], setting: Setting) -> dict[str, Way]:
    """Large requests, and one for every pair, with as many pairs under way."""
    ways: dict[str, Way] = {}
    for each in (setting.each, 1):
        name = f"{each} pairs a request" if each > 1 else "1 pair a request"
        requests = requests_for(shape, pairs, each=each)
        ways[name] = saturating(server, shape, requests, concurrency=max(1, setting.concurrency // each))
    return ways


def _named(server: Server, shape: Shape, pairs: Sequence[Pair], setting: Setting) -> dict[str, Way]:
    return {f"{server.name}, {name}": way for name, way in _ways(server, shape, pairs, setting).items()}


def _vllm(setting: Setting) -> Command:
    if importlib.util.find_spec("vllm") is None:
        raise GadError("vLLM is not installed", hint="install the extra cpu or gpu")
    classifier = as_classifier(setting.critic, setting.out / "classifier")
    return vllm_server(
        classifier,
        threads=setting.threads,
        dtype=setting.dtype,
        max_tokens=setting.max_tokens,
        name=_MODEL,
    )


def _try(server: Server, shape: Shape, pairs: Sequence[Pair]) -> None:
    saturating(server, shape, [shape.request(pairs, [0])], concurrency=1)()


def _count_tokens(setting: Setting, pairs: Sequence[Pair]) -> int:
    chat = setting.chat
    return sum(len(chat.prompt_ids(p.messages)) + len(chat.response_ids(p.response)) for p in pairs)
