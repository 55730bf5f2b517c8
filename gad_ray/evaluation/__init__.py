"""Measuring: the fixed held-out set, and what changed between before and after."""
