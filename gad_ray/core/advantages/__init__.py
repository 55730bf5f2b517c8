"""From rewards of a group of responses to advantages, one file each."""

from gad_ray.core.advantages.grpo import grpo_advantages

__all__ = ["grpo_advantages"]
