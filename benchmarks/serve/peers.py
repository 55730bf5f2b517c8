"""Who is faster: our endpoint, a plain loop, vLLM."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gad_ray.actors.process import runtime_env
from gad_ray.bench.serve.contest import Way, saturating, score_gap, shares, speeds, take_turns
from gad_ray.bench.serve.load import Request
from gad_ray.bench.serve.servers import Command, Server, endpoint
from gad_ray.bench.serve.setting import Setting
from gad_ray.bench.serve.shapes import OwnShape, Shape, json_request
from gad_ray.bench.serve.study import Part
from gad_ray.bench.serve.tables import NONE, Table, share
from gad_ray.bench.serve.texts import draw_pairs
from gad_ray.bench.serve.throughput import SHORTEST, ways_of
from gad_ray.errors import GadError
from gad_ray.models.chat import ChatFormat
from gad_ray.models.pairs import Pair

_MODEL = "critic"


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
    gaps = [score_gap(played, name, of=loop) for name in others]
    return {
        "pairs": len(pairs),
        "tokens": tokens,
        "ways": figures,
        "missing": missing,
        "peers_gap": max(gaps, default=0.0),
    }


def _named(server: Server, shape: Shape, pairs: Sequence[Pair], setting: Setting) -> dict[str, Way]:
    return {f"{server.name}, {name}": way for name, way in ways_of(server, shape, pairs, setting).items()}


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


@dataclass(frozen=True)
class RewardShape:
    """``POST /get_reward`` of a reward server such as OpenRLHF's: rendered text.

    Attributes:
        chat: Renders it.
    """

    chat: ChatFormat

    def request(self, pairs: Sequence[Pair], places: Sequence[int]) -> Request:
        """As :class:`Shape` says."""
        prompts = [self.chat.prompt_text(pairs[i].messages) for i in places]
        queries = [prompt + pairs[i].response for prompt, i in zip(prompts, places, strict=True)]
        return json_request("/get_reward", {"query": queries, "prompts": prompts}, places)

    def scores(self, content: bytes) -> list[float]:
        """As :class:`Shape` says."""
        return [float(reward) for reward in json.loads(content)["rewards"]]


@dataclass(frozen=True)
class ClassifyShape:
    """``POST /classify`` of vLLM: rendered text, one label.

    Attributes:
        chat: Renders it.
        model: Name of the served model.
    """

    chat: ChatFormat
    model: str

    def request(self, pairs: Sequence[Pair], places: Sequence[int]) -> Request:
        """As :class:`Shape` says."""
        texts = [self.chat.prompt_text(pairs[i].messages) + pairs[i].response for i in places]
        return json_request("/classify", {"model": self.model, "input": texts}, places)

    def scores(self, content: bytes) -> list[float]:
        """As :class:`Shape` says."""
        return [float(item["probs"][0]) for item in json.loads(content)["data"]]


def reward_server(critic: Path, *, threads: int) -> Command:
    """The plain FastAPI loop."""
    module = "benchmarks.serve.reward_server"
    return Command(
        name="FastAPI loop",
        arguments=[sys.executable, "-m", module, "--critic", str(critic), "--threads", str(threads)],
        ready="/health",
        environment=runtime_env(threads=threads)["env_vars"],
    )


def vllm_server(classifier: Path, *, threads: int, dtype: str, max_tokens: int, name: str) -> Command:
    """vLLM's own server of pooling models, with its defaults but for precision, threads, memory and its cache of prefixes.

    Args:
        classifier: A sequence classifier's directory.
        threads: That it computes with.
        dtype: Precision.
        max_tokens: Longest text.
        name: What clients call the model.
    """
    return Command(
        name="vLLM /classify",
        arguments=[
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(classifier)),
            *("--runner", "pooling", "--dtype", dtype, "--max-model-len", str(max_tokens)),
            *("--host", "127.0.0.1", "--served-model-name", name),
            *("--pooler-config", '{"use_activation": false}'),
            # The rounds repeat their texts: with it all but the first would measure the cache.
            "--no-enable-prefix-caching",
        ],
        ready="/health",
        environment={
            "OMP_NUM_THREADS": str(threads),
            # Placement of threads is the operating system's business, as for all others here.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        },
    )


def as_classifier(critic: Path, directory: Path) -> Path:
    """The same backbone and head as a Hugging Face sequence classifier of one label, which vLLM serves.

    It scores by the last token, as such models do: its scores are others than the critic's, its work is the same.

    Args:
        critic: An exported critic.
        directory: Where to; what is there already is kept.
    """
    from safetensors.torch import load_file, save_file

    if (directory / "config.json").is_file():
        return directory
    staging = directory.with_name(f".{directory.name}.staging")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(critic, staging)
    weights = load_file(staging / "model.safetensors")
    head = load_file(staging / "head.safetensors")
    dtype = next(iter(weights.values())).dtype
    named = {f"model.{name.removeprefix('model.')}": tensor for name, tensor in weights.items()}
    named["score.weight"] = head["weight"].to(dtype)[None].contiguous()
    save_file(named, staging / "model.safetensors", metadata={"format": "pt"})
    config = cast("dict[str, Any]", json.loads((staging / "config.json").read_text(encoding="utf-8")))
    kind = str(config["architectures"][0])
    config["architectures"] = [
        kind.removesuffix("ForCausalLM").removesuffix("Model") + "ForSequenceClassification"
    ]
    config["num_labels"] = 1
    config["id2label"], config["label2id"] = {"0": "score"}, {"score": 0}
    (staging / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    for name in ("critic.json", "head.safetensors"):
        (staging / name).unlink()
    staging.rename(directory)
    return directory


def _table(figures: Mapping[str, Any]) -> Table:
    rows = [["server", "pairs/s", "tokens/s", "ours is so many times as fast"]]
    for name, way in figures["ways"].items():
        rows.append(
            [
                name,
                f"{way['pairs_per_s']:.2f}",
                f"{way['tokens_per_s']:.0f}",
                share(way["ours_is_faster"]),
            ]
        )
    rows += [[name, "did not run", NONE, NONE] for name in figures["missing"]]
    return rows


def _notes(figures: Mapping[str, Any]) -> list[str]:
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


PEERS = Part(
    measure=measure_peers,
    settings=("pairs", "longest", "each", "concurrency", "rounds"),
    title="side by side",
    table=_table,
    notes=_notes,
)
