"""What scores pairs of prompt and response: one protocol, one file a critic."""

from gad_ray.critics.base import CRITICS, Critic
from gad_ray.critics.remote import RemoteCritic
from gad_ray.critics.value_head import ValueHeadCritic

__all__ = ["CRITICS", "Critic", "RemoteCritic", "ValueHeadCritic"]
