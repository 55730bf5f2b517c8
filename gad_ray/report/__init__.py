"""The report of a run, or of several: one HTML file with everything in it, made from the run's files alone."""

from gad_ray.report.write import write_report, write_reports

__all__ = ["write_report", "write_reports"]
