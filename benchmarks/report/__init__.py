"""One page of all that was measured, from the JSON files alone, and the figures that the README quotes from them."""

from benchmarks.report.command import add_report

__all__ = ["add_report"]
