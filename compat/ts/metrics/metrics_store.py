"""The metrics of a worker, under their older name."""

from stoker.worker.metrics import MetricsCache as MetricsStore

__all__ = ["MetricsStore"]
