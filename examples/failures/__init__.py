"""Failures that the field reports, reproduced on a small real model and then absent with our defaults.

One file each: a function ``reproduce(bench)`` trains what it needs and returns a
:class:`~examples.failures.finding.Finding`, whatever it says.
"""
