"""A client of the endpoint, and the format that both sides speak. It loads neither torch nor ray."""

from gad_ray.client.retry import ClientSettings, EndpointError
from gad_ray.client.score_client import Score, ScoreClient

__all__ = ["ClientSettings", "EndpointError", "Score", "ScoreClient"]
