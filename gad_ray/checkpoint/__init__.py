"""Checkpoints: committed whole or not at all, verified by digest, kept by a rule."""
