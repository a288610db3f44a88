"""Metrics as JSON."""

import json
from typing import Any

__all__ = ["MetricEncoder"]


class MetricEncoder(json.JSONEncoder):
    """For `json.dumps(metrics, cls=MetricEncoder)`."""

    def default(self, o: Any) -> Any:
        return o.to_dict() if hasattr(o, "to_dict") else super().default(o)
