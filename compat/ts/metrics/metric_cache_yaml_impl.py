"""The metrics of a worker, under their newer name."""

from stoker.worker.metrics import MetricsCache as MetricsCacheYamlImpl

__all__ = ["MetricsCacheYamlImpl"]
