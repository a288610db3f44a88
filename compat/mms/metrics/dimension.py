"""One label of a metric."""

from stoker.worker.metrics import Dimension

__all__ = ["Dimension"]
