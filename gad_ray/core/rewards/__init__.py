"""Format rewards: functions of a response's text, one file each."""

from gad_ray.core.rewards.custom import (
    RewardFunction,
    is_declared,
    load_reward_function,
    reward_function,
    reward_value,
)
from gad_ray.core.rewards.language import main_script, same_language
from gad_ray.core.rewards.leaked_control import control_token_in, leaked_control, timestamp_in
from gad_ray.core.rewards.length_window import length_window
from gad_ray.core.rewards.parsed_json import parsed_json
from gad_ray.core.rewards.pattern import required_pattern
from gad_ray.core.rewards.repetition import no_repetition

__all__ = [
    "RewardFunction",
    "control_token_in",
    "is_declared",
    "leaked_control",
    "length_window",
    "load_reward_function",
    "main_script",
    "no_repetition",
    "parsed_json",
    "required_pattern",
    "reward_function",
    "reward_value",
    "same_language",
    "timestamp_in",
]
