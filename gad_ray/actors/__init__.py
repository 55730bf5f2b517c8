"""Thin Ray shells around plain classes: validate, delegate, return a typed result."""
