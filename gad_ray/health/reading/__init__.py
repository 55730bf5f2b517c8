"""Logs of many kinds, read into one form: runs of ours, metrics files, TensorBoard events, verl's console."""

from gad_ray.health.reading.source import read_history

__all__ = ["read_history"]
