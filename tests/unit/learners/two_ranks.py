"""The same updates on a group of any size: what each process of a spawned group runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from gad_ray.config.critic import BradleyTerryLoss, FixedTemperature, ScoreReg
from gad_ray.config.fit import SodaFit
from gad_ray.config.policy import KlConfig, TruncatedImportance
from gad_ray.learners.collective import Collective, TorchCollective
from gad_ray.learners.critic import CriticLearner
from gad_ray.learners.policy import PolicyLearner
from gad_ray.learners.preference import preference_groups, preference_step, reference_logprobs
from gad_ray.models.chat import load_chat_format
from tests.unit.builders import (
    STUDENT,
    TEACHER,
    critic_config,
    critic_learner,
    policy_config,
    policy_learner,
    prompt_batch,
    rollout_batch,
    spread_scores,
    weights_of,
)

CASES = ("critic", "critic_normalised", "critic_few", "policy", "fit", "preference")
# Uneven: the ranks have another number of responses and of tokens.
TEXTS = (STUDENT[0], (TEACHER[1], "a list"), ("340", "340", "51", "391"), STUDENT[3])


def run_rank(rank: int, size: int, address: str, model_dir: Path, out_dir: Path) -> None:
    """Join a group, run every case, and write what came out of it."""
    torch.set_num_threads(1)
    group = TorchCollective(
        rank=rank, size=size, address=address, timeout_s=120.0, device=torch.device("cpu")
    )
    run_cases(model_dir, out_dir / f"rank{rank}", group)
    group.close()


def run_cases(model_dir: Path, out_dir: Path, group: Collective) -> None:
    """One update of each learner; weights and metrics to ``out_dir``."""
    out_dir.mkdir()
    chat, prompts = load_chat_format(model_dir), prompt_batch()
    rollouts = rollout_batch(chat, prompts, texts=TEXTS)
    for case in CASES:
        learner: CriticLearner | PolicyLearner
        scores: list[float] = []
        if case.startswith("critic"):
            loss = BradleyTerryLoss(
                temperature=FixedTemperature(value=0.5),
                score_reg=ScoreReg(threshold=0.1, weight=0.1),
                batch_norm=case != "critic",
            )
            learner = critic_learner(
                critic_config(model_dir, loss=loss, micro_batch_tokens=150), collective=group
            )
            # With one prompt, the second rank has nothing to do, and must still take part.
            few = case == "critic_few"
            given = prompt_batch(1) if few else prompts
            batch, stats = learner.judge(given, rollout_batch(chat, given, texts=TEXTS) if few else rollouts)
            scores = [*batch.student.tolist(), *batch.teacher.tolist()]
        else:
            config = policy_config(
                model_dir,
                kl=KlConfig(coefficient=0.1),
                importance=TruncatedImportance(),
                epochs_per_step=2,
                micro_batch_tokens=150,
            )
            learner = policy_learner(config, mini_batch_prompts=3, collective=group)
            if case == "fit":
                stats = learner.fit(prompts)
            elif case == "preference":
                groups = preference_groups(chat, prompts.examples, rollouts)
                references = reference_logprobs(learner, groups)
                scores = np.concatenate([part.values for part in references.values()]).tolist()
                config = SodaFit(nll_weight=0.1)
                for _ in range(2):
                    stats = preference_step(learner, list(groups.values()), list(references.values()), config)
            else:
                learner.begin_adversarial()
                stats = learner.update(rollouts, spread_scores(rollouts))
        save_file(weights_of(learner), out_dir / f"{case}.safetensors")
        figures = {k: v for k, v in stats.metrics.items() if not k.startswith(("timing", "perf"))}
        (out_dir / f"{case}.json").write_text(json.dumps({"metrics": figures, "scores": scores}))
