"""Prompts and teacher texts: where they come from, what makes a row unusable, in which order they are drawn."""
