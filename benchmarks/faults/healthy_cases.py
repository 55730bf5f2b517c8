"""Healthy runs: other seeds, and other settings that are as good."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.faults.case import Case

_HEALTHY = Case(name="seed-0", done="as it is", heldout=24, eval_every=8)

HEALTHY_CASES: tuple[Case, ...] = (
    _HEALTHY,
    replace(_HEALTHY, name="seed-1", done="another seed", overrides=("seed=1", "data.seed=1")),
    replace(_HEALTHY, name="rloo", done="rloo advantages", overrides=("policy.advantage.name=rloo",)),
    replace(
        _HEALTHY,
        name="adaptive-temperature",
        done="adaptive τ, the preset 'smooth'",
        overrides=("critic.loss.temperature={name: adaptive, preset: smooth}",),
    ),
    replace(
        _HEALTHY,
        name="batch-normalisation",
        done="batch normalisation of the scores",
        overrides=("critic.loss.batch_norm=true",),
    ),
    replace(
        _HEALTHY,
        name="blend-pooling",
        done="pooling from mean to last over steps 10 to 30",
        overrides=("critic.pooling={name: blend, blend_start: 10, blend_end: 30}",),
    ),
    replace(
        _HEALTHY,
        name="policy-at-rest",
        done="the policy stands still in the warm-up, as many do it",
        fitted=False,
    ),
    replace(
        _HEALTHY,
        name="bfloat16-rollout",
        done="the engine computes in bfloat16 too",
        overrides=("rollout.precision=bfloat16",),
    ),
)
