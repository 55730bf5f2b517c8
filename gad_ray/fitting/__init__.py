"""Offline fitting under Ray Train: the worker's loop, and how the driver hears of it."""
