"""Format rewards: functions of a response's text, one file each."""

from gad_ray.core.rewards.repetition import no_repetition

__all__ = ["no_repetition"]
