"""Health rules: what an unhealthy run looks like, what it means, and which setting mends it."""

from gad_ray.health.monitor import Finding, HealthMonitor
from gad_ray.health.rules import RULES, Rule, Severity

__all__ = ["RULES", "Finding", "HealthMonitor", "Rule", "Severity"]
