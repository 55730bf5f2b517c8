"""``benchmarks/gpu_check.sh``: the parts, one after the other; a part that fails does not stop the others.

A rate is a share of what the card multiplies in bfloat16 on the spot (8192³), and of its published peak. Only what must be
computed counts: a common prompt once, no padding, no second pass of a chunk. Times are the median of the rounds, with the
least and the most.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu_check.models import LARGE, MEDIUM, SMALL, TOY, Shape, draw_rows, make_model
from gad_ray.batch import (
    Example,
    Message,
    PromptBatch,
    Ragged,
    RolloutBatch,
    SamplingSettings,
    StopReason,
    TrainBatch,
)
from gad_ray.config.base import Precision
from gad_ray.config.critic import CriticConfig
from gad_ray.config.models import ModelConfig, OptimizerConfig
from gad_ray.config.policy import PolicyConfig
from gad_ray.learners.collective import LocalCollective
from gad_ray.learners.critic import CriticLearner
from gad_ray.learners.policy import PolicyLearner
from gad_ray.models.policy import PolicyModel, SequenceRow
from gad_ray.models.sequence_packing import Packing, packed_states, plan_passes

_PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""FLOP/s in dense bfloat16, as published."""

_SAMPLING = SamplingSettings(
    num_responses=8, temperature=1.0, top_p=1.0, repetition_penalty=1.0, max_tokens=4096, seed=0
)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@dataclass(slots=True)
class Check:
    """What the parts share, and what they found."""

    device: torch.device
    small: bool
    scratch: Path
    rounds: int = 3
    measured_peak: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    models: dict[tuple[str, str], Path] = field(default_factory=dict)

    def tell(self, part: str, **figures: Any) -> None:
        """Print a line of figures and keep it."""
        self.figures.setdefault(part, []).append(figures)
        _say(f"{part} {json.dumps(figures)}")

    def demand(self, test: bool, what: str) -> None:
        """Note what should hold and does not."""
        if not test:
            self.failures.append(what)
            _say(f"FAILED {what}")

    def model(self, shape: Shape, dtype: str) -> str:
        """A directory with a model of this shape."""
        key = (shape.name, dtype)
        if key not in self.models:
            place = self.scratch / f"{shape.name}-{dtype}"
            self.models[key] = make_model(shape, place, dtype=getattr(torch, dtype), device=self.device)
        return str(self.models[key])

    def shape(self, wanted: Shape) -> Shape:
        """This shape, or a toy's."""
        return TOY if self.small else wanted

    def sync(self) -> None:
        """Wait for the card."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object]) -> tuple[float, float, float]:
        """Median, least and most of the rounds; one before them does not count."""
        work()
        found: list[float] = []
        for _ in range(self.rounds):
            self.sync()
            started = time.perf_counter()
            work()
            self.sync()
            found.append(time.perf_counter() - started)
        return statistics.median(found), min(found), max(found)

    def peak_memory(self, work: Callable[[], object]) -> float:
        """GiB that are held at most while something is done, beyond what was held before."""
        if self.device.type != "cuda":
            work()
            return float("nan")
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        self.sync()
        return (torch.cuda.max_memory_allocated() - before) / 2**30

    def rate(self, flops: float, seconds: float) -> dict[str, float]:
        """TFLOP/s, as a share of what was measured and of what is published."""
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU"
        peak = next((value for card, value in _PEAK.items() if card in name), float("nan"))
        rate = flops / seconds
        return {
            "tflops": round(rate / 1e12, 2),
            "of_measured": round(rate / self.measured_peak, 3),
            "of_peak": round(rate / peak, 3),
        }


def machine(check: Check) -> None:
    """The card, and what it multiplies."""
    import transformers

    on_gpu = check.device.type == "cuda"
    size = 8192 if on_gpu and not check.small else 512
    a, b = (torch.randn(size, size, device=check.device, dtype=torch.bfloat16) for _ in range(2))
    median, *_ = check.seconds(lambda: [a @ b for _ in range(10)])
    check.measured_peak = 20.0 * size**3 / median
    check.tell(
        "machine",
        card=torch.cuda.get_device_name() if on_gpu else platform.processor(),
        torch=torch.__version__,
        transformers=transformers.__version__,
        python=platform.python_version(),
        bfloat16_tflops=round(check.measured_peak / 1e12, 1),
    )


def parity(check: Check) -> None:
    """Log-probabilities and gradients on the device, padded and end to end, beside a CPU's in float32."""
    whole = check.shape(SMALL)
    shape = Shape(
        "parity",
        whole.hidden,
        min(8, whole.layers),
        whole.heads,
        whole.key_heads,
        whole.intermediate,
        min(8192, whole.words),
    )
    directory = check.model(shape, "float32")
    rows = draw_rows(shape, 60, [40, 17, 1, 64], groups=2) + draw_rows(shape, 33, [20], groups=2, seed=1)

    def computed(
        device: torch.device, compute: Precision, packing: bool
    ) -> tuple[list[Tensor], Tensor, bool]:
        config = ModelConfig(model=directory, compute=compute, chat_template="chatml")
        model = PolicyModel.build(config, packing=packing).to(device)
        out = model.token_logprobs(rows)
        out.logprobs.sum().backward()
        gradient = torch.cat(
            [p.grad.float().flatten().cpu() for p in model.parameters() if p.grad is not None]
        )
        values = [v[: r.num_response_tokens].detach().cpu() for v, r in zip(out.logprobs, rows, strict=True)]
        return values, gradient, model.packs

    wanted, wanted_gradient, _ = computed(torch.device("cpu"), "float32", False)
    gaps: dict[tuple[str, bool], float] = {}
    for compute in get_args(Precision):
        for packing in (False, True):
            values, gradient, packs = computed(check.device, compute, packing)
            gap = torch.cat([(a - b).abs() for a, b in zip(values, wanted, strict=True)])
            apart = float((gradient - wanted_gradient).norm() / wanted_gradient.norm())
            check.tell(
                "parity",
                compute=compute,
                packing=packing,
                packs=packs,
                largest=float(gap.max()),
                mean=float(gap.mean()),
                gradient=apart,
            )
            gaps[compute, packing] = apart
            check.demand(packs is packing, f"parity: rows end to end in {compute}")
    for packing in (False, True):
        check.demand(gaps["float32", packing] < 1e-3, f"parity: gradient in float32, packing {packing}")
    check.demand(
        gaps["bfloat16", True] < 1.2 * gaps["bfloat16", False] + 1e-3,
        "parity: gradient in bfloat16, end to end",
    )


def head(check: Check) -> None:
    """Memory of log-probabilities of many tokens, beside the backbone's alone."""
    for compute in get_args(Precision):
        _head(check, compute)
        _forget(check)


def _head(check: Check, compute: Precision) -> None:
    shape = check.shape(SMALL)
    rows = draw_rows(shape, 4, [1020] if not check.small else [60], groups=16)
    config = ModelConfig(model=check.model(shape, "float32"), compute=compute, chat_template="chatml")
    model = PolicyModel.build(config, packing=True).to(check.device)
    assert model.packs
    packing = Packing(rows, device=check.device)
    decoder = model.decoder

    def backbone() -> None:
        packed_states(decoder, packing).float().sum().backward()

    def whole() -> None:
        model.token_logprobs(rows).logprobs.sum().backward()

    for work in (backbone, whole):  # gradients have their place now
        work()
    alone, both = check.peak_memory(backbone), check.peak_memory(whole)
    check.tell(
        "head",
        compute=compute,
        tokens=sum(len(row) for row in rows),
        backbone_gib=alone,
        with_head_gib=both,
        ratio=both / alone,
    )
    check.demand(not both > 1.3 * alone, f"head: {both / alone:.2f} of the backbone's memory in {compute}")


def shared(check: Check) -> None:
    """Forward and backward passes, padded and end to end, over lengths of prompt and answer."""
    shape = check.shape(MEDIUM)
    config = ModelConfig(model=check.model(shape, "bfloat16"), compute="bfloat16", chat_template="chatml")
    models = {
        packing: PolicyModel.build(config, packing=packing).to(check.device) for packing in (False, True)
    }
    cases = ((64, 64, 8), (256, 64, 8), (1024, 64, 8), (256, 256, 8), (256, 1024, 8), (2048, 128, 16))
    for prompt, answer, count in cases[:2] if check.small else cases:
        draw = np.random.default_rng(7)
        answers = [int(n) for n in draw.integers(answer // 2, answer + 1, count)]
        rows = draw_rows(shape, prompt, answers, groups=4)
        padded, packed = (_pass_seconds(check, models[packing], rows) for packing in (False, True))
        check.tell(
            "shared",
            prompt=prompt,
            answer=answer,
            count=count,
            padded_s=padded[0],
            packed_s=packed[0],
            ratio=round(padded[0] / packed[0], 2),
            spread=[round(padded[1] / packed[2], 2), round(padded[2] / packed[1], 2)],
            **check.rate(shape.flops(rows, with_head=True), packed[0]),
        )


def _pass_seconds(
    check: Check, model: PolicyModel, rows: Sequence[SequenceRow]
) -> tuple[float, float, float]:
    plans = plan_passes(rows, max_tokens=16384, packs=model.packs)

    def work() -> None:
        for index in plans:
            model.token_logprobs([rows[i] for i in index]).logprobs.sum().backward()

    return check.seconds(work)


def learners(check: Check) -> None:
    """Whole updates: forward, backward, optimiser, figures."""
    for wanted in (MEDIUM, LARGE):
        shape = check.shape(wanted)
        directory = check.model(shape, "bfloat16")
        prompt, answers, groups = (24, [20, 31, 9, 12], 2) if check.small else (512, [512] * 8, 8)
        rows = draw_rows(shape, prompt, answers, groups=groups)
        for packing in (False, True):
            _policy(check, shape, directory, rows, per_group=len(answers), packing=packing)
            _forget(check)
        _critic(check, shape, directory, prompt=prompt, answers=answers, groups=groups)
        _forget(check)


def _model_config(directory: str) -> ModelConfig:
    """Without gradient checkpointing: a card of 80 GiB holds what these passes keep."""
    return ModelConfig(
        model=directory, compute="bfloat16", chat_template="chatml", gradient_checkpointing=False
    )


def _policy(
    check: Check, shape: Shape, directory: str, rows: list[SequenceRow], *, per_group: int, packing: bool
) -> None:
    learner = PolicyLearner(
        PolicyConfig(
            model=_model_config(directory),
            optimizer=OptimizerConfig(lr=1e-6),
            micro_batch_tokens=64 if check.small else 8192,
            packing=packing,
        ),
        mini_batch_prompts=len(rows) // per_group,
        total_steps=100,
        warmup_lr=None,
        collective=LocalCollective(),
        max_nonfinite_steps=1,
        device=check.device,
    )
    learner.begin_adversarial()
    responses = [row.ids[row.start :] for row in rows]
    advantages = np.resize(np.asarray([1.0, -1.0], dtype=np.float32), len(rows))

    def batch() -> TrainBatch:
        return TrainBatch(
            step=1,
            prompt_tokens=Ragged.from_rows([row.ids[: row.start] for row in rows], np.int32),
            response_tokens=Ragged.from_rows(responses, np.int32),
            logprobs=Ragged.from_rows(
                [np.full(len(r), -12.0, dtype=np.float32) for r in responses], np.float32
            ),
            group=np.arange(len(rows), dtype=np.int64) // per_group,
            advantages=advantages,
            kept=np.ones(len(rows), dtype=np.bool_),
            policy_versions=np.full(len(rows), learner.version, dtype=np.int64),
            sampling=_SAMPLING,
        )

    stats = learner.update(batch())
    check.demand(stats.num_skipped == 0, f"learners: the policy's update of {shape.name} was skipped")
    median, least, most = check.seconds(lambda: learner.update(batch()))
    memory = check.peak_memory(lambda: learner.update(batch()))
    check.tell(
        "policy",
        shape=shape.name,
        packing=packing,
        seconds=median,
        spread=[least, most],
        tokens_per_s=round(sum(len(row) for row in rows) / median),
        peak_gib=memory,
        **check.rate(shape.flops(rows, with_head=True), median),
    )


def _critic(
    check: Check, shape: Shape, directory: str, *, prompt: int, answers: Sequence[int], groups: int
) -> None:
    learner = CriticLearner(
        CriticConfig(
            model=_model_config(directory),
            optimizer=OptimizerConfig(lr=1e-6),
            micro_batch_tokens=64 if check.small else 8192,
            packing=True,
        ),
        seed=0,
        total_steps=100,
        collective=LocalCollective(),
        max_nonfinite_steps=1,
        device=check.device,
    )
    draw = np.random.default_rng(3)
    letters = np.asarray(list("abcdefgh ijklmnop"))

    def text(length: int) -> str:
        return "".join(draw.choice(letters, length))

    examples = tuple(
        Example(
            id=str(i),
            messages=(Message(role="user", content=text(prompt)),),
            teacher_response=text(answers[0]),
        )
        for i in range(groups)
    )
    texts = [text(n) for _ in examples for n in answers]
    chat = learner.model.encoder.chat
    tokens = [np.asarray(chat.response_ids(t), dtype=np.int32) for t in texts]
    rollouts = RolloutBatch(
        step=1,
        example_ids=tuple(example.id for example in examples for _ in answers),
        texts=tuple(texts),
        prompt_tokens=Ragged.from_rows(
            [chat.prompt_ids(e.messages) for e in examples for _ in answers], np.int32
        ),
        response_tokens=Ragged.from_rows(tokens, np.int32),
        logprobs=Ragged.from_rows([np.full(len(t), -1.0) for t in tokens], np.float32),
        stop_reasons=(StopReason.STOP,) * len(texts),
        policy_versions=np.zeros(len(texts), dtype=np.int64),
        sampling=_SAMPLING,
        teacher_lengths=np.full(len(texts), answers[0], dtype=np.int32),
    )
    prompts = PromptBatch(step=1, examples=examples)
    scores, stats = learner.score_and_update(prompts, rollouts)
    check.demand(stats.num_skipped == 0, f"learners: the critic's update of {shape.name} was skipped")
    check.demand(bool(np.isfinite(scores.student).all()), f"learners: the critic's scores of {shape.name}")
    median, least, most = check.seconds(lambda: learner.score_and_update(prompts, rollouts))
    rows = [
        SequenceRow(
            ids=np.asarray([*chat.prompt_ids(e.messages), *chat.response_ids(t)], dtype=np.int32),
            start=len(chat.prompt_ids(e.messages)),
        )
        for i, e in enumerate(examples)
        for t in [e.teacher_response, *texts[i * len(answers) : (i + 1) * len(answers)]]
    ]
    check.tell(
        "critic",
        shape=shape.name,
        seconds=median,
        spread=[least, most],
        tokens_per_s=round(sum(len(row) for row in rows) / median),
        peak_gib=check.peak_memory(lambda: learner.score_and_update(prompts, rollouts)),
        **check.rate(shape.flops(rows, with_head=False), median),
    )


def _forget(check: Check) -> None:
    gc.collect()
    if check.device.type == "cuda":
        torch.cuda.empty_cache()


PARTS: dict[str, Callable[[Check], None]] = {
    "parity": parity,
    "head": head,
    "shared": shared,
    "learners": learners,
}


def main() -> int:
    """Run the parts that are asked for; returns how many failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all when left out")
    parser.add_argument("--out", type=Path, required=True, help="directory for figures")
    parser.add_argument("--small", action="store_true", help="toy sizes, also on a CPU")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.small:
        _say("no GPU here; --small tries the check itself")
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as scratch:
        check = Check(device=device, small=options.small, scratch=Path(scratch))
        machine(check)
        for name in options.parts or PARTS:
            started = time.perf_counter()
            try:
                PARTS[name](check)
            except Exception:  # noqa: BLE001 (told, and the other parts go on)
                traceback.print_exc()
                check.demand(False, f"{name} ended with an error")
            _forget(check)
            _say(f"{name}: {time.perf_counter() - started:.0f} s")
            found = {**check.figures, "failures": check.failures}
            (options.out / "gpu_check.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    _say("failed: " + ("; ".join(check.failures) or "nothing"))
    return len(check.failures)


if __name__ == "__main__":
    sys.exit(main())
