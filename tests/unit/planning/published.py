"""Two published runs as the cost model sees them. What the publications do not say is assumed here, each with its reason.

The paper's settings are those of its published scripts (microsoft/LMOps, gad/scripts/train): verl, all roles taking turns on the same
GPUs, rows without padding, one optimiser step of 256 prompts, eight responses also in the warm-up, engines over two
GPUs. verl makes a forward pass for π_old and one for the critic's scores, which we do not. The replication is taken to be played
likewise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gad_ray.planning.cost_model import (
    Cluster,
    Engine,
    Group,
    ModelSize,
    Passes,
    Work,
    fit_seconds,
    game_seconds,
    step_seconds,
)
from gad_ray.planning.devices import Device, find_gpu


def _size(parameters: int, *, vocab: int, hidden: int, layers: int, tied: bool, head: bool) -> ModelSize:
    table = vocab * hidden
    return ModelSize(
        parameters=parameters,
        backbone=parameters - table * (1 if tied else 2),
        head=table if head else 0,
        layers=layers,
        hidden=hidden,
        key_value_width=1024,  # 8 heads of 128 in both models
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published run.

    Attributes:
        policy: The policy's sizes, from its model card.
        critic: The critic's: the same model with a value head.
        work: A step.
        device: The GPU.
        num_gpus: GPUs, on which all roles take turns.
        tensor_parallel: GPUs of one engine.
        warmup_steps: Steps in which the policy is fitted to the teacher's text.
        game_steps: Steps of the game.
        hours: What it took, as published.
    """

    policy: ModelSize
    critic: ModelSize
    work: Work
    device: Device
    num_gpus: int
    tensor_parallel: int
    warmup_steps: int
    game_steps: int
    hours: float

    def planned_hours(self, *, mfu: float | None = None) -> float:
        """Hours by the cost model."""
        game, warmup = self.planned_steps(mfu=mfu)
        return (self.game_steps * game + self.warmup_steps * warmup) / 3600

    def planned_steps(self, *, mfu: float | None = None) -> tuple[float, float]:
        """Seconds of a step of the game, and of the warm-up."""
        cluster = self.cluster(mfu=mfu)
        parts = self.parts(mfu=mfu)
        fitted = {**parts, "policy": fit_seconds(self.work, cluster, policy=self.policy)}
        return step_seconds(parts, cluster), step_seconds(fitted, cluster)

    def parts(self, *, mfu: float | None = None) -> dict[str, float]:
        """Seconds of the parts of a step of the game."""
        return game_seconds(self.work, self.cluster(mfu=mfu), policy=self.policy, critic=self.critic)

    def cluster(self, *, mfu: float | None = None) -> Cluster:
        """All roles on all GPUs."""
        device = self.device.for_model(self.policy.parameters, mfu)
        learner = Group(num=self.num_gpus, device=device, precision="bfloat16")
        rollout = replace(
            learner, num=self.num_gpus // self.tensor_parallel, devices_each=self.tensor_parallel
        )
        # 1,024 sequences: verl's default. 5 ms a step: as for any plan.
        engine = Engine(slots=1024, continuous=True, step_s=0.005)
        return Cluster(policy=learner, critic=learner, rollout=rollout, engine=engine)


def _work(*, prompts: int, trained_weights: int) -> Work:
    """A step with the paper's settings: 8 responses, KL 0.001 in the loss, cut at 1,536 tokens.

    Lengths: 414 tokens of a response and 329 of the teacher's are the paper's figures for its 7B student. 100 tokens of a prompt:
    70 in the mean of LMSYS-Chat-1M, and a chat template. The longest of a step's 2,048 responses is taken to be cut.
    """
    return Work(
        prompts=prompts,
        responses_per_prompt=8,
        prompt_tokens=100,
        response_tokens=414,
        longest_response=1536,
        teacher_tokens=329,
        # One optimiser step; a forward pass for the reference and one for π_old; activations computed anew, as is
        # usual for these sizes.
        policy=Passes(
            trained=1, scored=2, optimizer_steps=1, recomputes=True, trained_weights=trained_weights
        ),
        critic=Passes(
            trained=1, scored=1, optimizer_steps=1, recomputes=True, trained_weights=trained_weights
        ),
    )


_QWEN25_14B = 14_770_033_664
_QWEN3_4B = 4_022_468_096

PAPER = Published(
    # GAD, arXiv 2511.10643: Qwen2.5-14B-Instruct, 16 H100, 2,400 steps of 256 × 8: about 30 h. A third of the steps is
    # the warm-up (one epoch of three).
    policy=_size(_QWEN25_14B, vocab=152_064, hidden=5120, layers=48, tied=False, head=True),
    critic=_size(_QWEN25_14B, vocab=152_064, hidden=5120, layers=48, tied=False, head=False),
    work=_work(prompts=256, trained_weights=_QWEN25_14B // 16),
    device=find_gpu("h100"),
    num_gpus=16,
    tensor_parallel=2,
    warmup_steps=800,
    game_steps=1600,
    hours=30.0,
)

REPLICATION = Published(
    # Baseten: Qwen3-4B, 20,000 rows, 8 H200, about 10 h. Steps, epochs and lengths are not said: taken are the paper's,
    # three epochs of 20,000 / 256 steps, one of them the warm-up.
    policy=_size(_QWEN3_4B, vocab=151_936, hidden=2560, layers=36, tied=True, head=True),
    critic=_size(_QWEN3_4B, vocab=151_936, hidden=2560, layers=36, tied=True, head=False),
    work=_work(prompts=256, trained_weights=_QWEN3_4B // 8),
    device=find_gpu("h200"),
    num_gpus=8,
    tensor_parallel=1,
    warmup_steps=78,
    game_steps=156,
    hours=10.0,
)
