"""Health rules: what an unhealthy run looks like, what it means, and which setting mends it."""

from gad_ray.health.diagnosis import Diagnosis, diagnose
from gad_ray.health.findings import RunFinding
from gad_ray.health.monitor import HealthMonitor
from gad_ray.health.rules import RULES, Rule

__all__ = ["RULES", "Diagnosis", "HealthMonitor", "Rule", "RunFinding", "diagnose"]
