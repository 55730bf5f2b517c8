"""What the driver tells of a step: its time and memory, what it was played on, and what came of it."""

from __future__ import annotations

from gad_ray.observability.metrics import Unit, counter, gauge

METRICS = (
    gauge(
        "critic/fingerprint",
        "First 12 hex digits, as a number, of the fingerprint of the critic that scored the step",
    ),
    gauge(
        "critic/same_as_evaluated",
        "In the step after an evaluation: 1 if the critic that scores is the one that was evaluated, 0 if it is not",
    ),
    counter(
        "critic/skipped_steps", "Optimiser steps of the critic skipped for a non-finite loss or gradient"
    ),
    counter("actor/skipped_steps", "Optimiser steps of the policy skipped for a non-finite loss or gradient"),
    gauge("rollout/staleness", "Policy updates by which the samples are older than the policy", Unit.UPDATES),
    gauge("rollout/refill_rounds", "Times that the step drew prompts in place of groups without spread"),
    counter("rollout/refilled_groups", "Prompts drawn in place of groups without spread"),
    counter("rollout/unfilled_groups", "Places in the policy's batch that stayed empty after the refills"),
    counter("rollout/tokens", "Response tokens that were generated"),
    gauge(
        "sync/probe_gap",
        "Gap of learner's and engine's log-probabilities of the probe after a sync",
        Unit.NATS,
    ),
    gauge("sync/bytes", "Weights that a sync brought to each rollout worker", Unit.BYTES),
    gauge("train/step", "Steps done"),
    gauge("data/epoch", "Passes over the training prompts that have begun or been done", Unit.EPOCHS),
    gauge("data/admitted_prompts", "Training prompts that the curriculum lets in at present"),
    gauge("health/answers", "Settings that health rules have changed, and not put back yet"),
    gauge(
        "perf/rollout_tokens_per_s", "Response tokens generated per second of rollout", Unit.TOKENS_PER_SECOND
    ),
    gauge("perf/memory_bytes", "Memory held by the run's processes together", Unit.BYTES),
    gauge("perf/memory_peak_bytes", "Largest memory held by the run's processes together so far", Unit.BYTES),
    gauge("serve/published_step", "Optimiser steps of the critic that was published last"),
    gauge(
        "serve/published_fingerprint",
        "First 12 hex digits, as a number, of the fingerprint of the critic that was published last",
    ),
    gauge(
        "serve/publish_seconds",
        "Time in which the critic checked, fingerprinted and put itself into the object store, beside the step",
        Unit.SECONDS,
    ),
    gauge("serve/published_bytes", "Size of the published critic", Unit.BYTES),
    gauge("serve/replicas", "Replicas that have asked for a critic of late"),
    gauge("serve/served_step", "Optimiser steps of the oldest critic that a replica serves"),
    counter("serve/troubles", "Troubles of the endpoint that were told with the step"),
    *(
        gauge(f"timing_s/{part}", f"Wall time of {what}", Unit.SECONDS)
        for part, what in {
            "rollout": "generation",
            "score": "scoring by the critic",
            "update_critic": "the critic's update",
            "reward": "waiting for the rewards, user's functions among them",
            "update_actor": "the policy's update",
            "sync": "bringing the new weights to the rollout engines",
            "eval": "scoring the fixed evaluation set",
            "exchange": "all else: batches and weights on their way to whoever waits for them, and the controller's own work",
            "publish": "handing the new critic to the endpoint, without waiting for anybody",
            "step": "the whole step",
        }.items()
    ),
)
