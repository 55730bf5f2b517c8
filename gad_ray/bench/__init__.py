"""Measurements that anyone can repeat: each prints a table and keeps its raw figures as JSON."""
