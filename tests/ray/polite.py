"""A reward function of a user's: ``reward.format=[{name: custom, function: 'tests.ray.polite:polite'}]``."""

from gad_ray.core.rewards import reward_function


@reward_function
def polite(prompt: str, response: str) -> float:
    """1 where the response says please."""
    return float("please" in response)
