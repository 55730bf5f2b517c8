"""The driver of a Ray job: stages, steps, staleness, checkpoints, supervision."""
