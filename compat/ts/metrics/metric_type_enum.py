"""The kinds of metrics there are."""

from stoker.worker.metrics import MetricTypes

__all__ = ["MetricTypes"]
