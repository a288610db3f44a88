"""One metric."""

from stoker.worker.metrics import Metric

__all__ = ["Metric"]
