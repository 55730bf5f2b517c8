"""The driver of a Ray job: stages, steps, staleness, checkpoints, supervision."""

from gad_ray.controller.train import train

__all__ = ["train"]
