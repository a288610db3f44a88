"""One metric."""

from stoker.worker.mms_metrics import MmsMetric as Metric

__all__ = ["Metric"]
