"""The metrics of a worker."""

from stoker.worker.mms_metrics import MetricsStore

__all__ = ["MetricsStore"]
