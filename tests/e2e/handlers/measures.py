"""Counts and times what it is asked to, in every way a handler can."""

from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes


def handle(data, context):
    if data is None:
        return None
    metrics = context.metrics
    metrics.add_counter("hits", len(data), dimensions=[Dimension("kind", "x")])
    metrics.add_time("HandlerTime", 12.5)
    metrics.add_metric("sizes", 0.03, "MB", metric_type=MetricTypes.HISTOGRAM)
    print("[METRICS]printed.Count:2|#ModelName:m,Level:Model|#hostname:h,1717105563", flush=True)
    return ["counted"] * len(data)
