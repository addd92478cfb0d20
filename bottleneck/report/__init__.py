"""A finished classifier and a test set as one HTML file."""

from bottleneck.report.write import write_report

__all__ = ["write_report"]
