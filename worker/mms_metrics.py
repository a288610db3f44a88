"""`context.metrics` as handlers of MMS know it: other signatures and words, the same store.

Source: contracts/mms.md 14.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stoker.worker.metrics import (
    SIZE_UNITS,
    TIME_UNITS,
    UNITS,
    Dimension,
    Metric,
    MetricsCache,
    MetricTypes,
)

if TYPE_CHECKING:
    from stoker.worker.measurements import Pending


class MetricsStore(MetricsCache):
    """The metrics of one worker; the first two arguments are the peer's."""

    def __init__(
        self,
        request_ids: Mapping[int, str] | None = None,
        model_name: str = "",
        pending: Pending | None = None,
    ) -> None:
        super().__init__(model_name, request_ids, pending)

    def add_metric_to_cache(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Sequence[str] = (),
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> Metric:
        """One series per set of names: the peer's metrics may have other dimensions each time."""
        known = super().add_metric_to_cache(metric_name, unit, dimension_names, metric_type)
        names = tuple(dimension_names)
        if known.dimension_names == names:
            return known
        key = " ".join((metric_name, *names))
        other = self.cache[metric_type].get(key)
        if other is None:
            other = Metric(metric_name, unit, names, metric_type, self.pending)
            self.cache[metric_type][key] = other
        return other

    def add_metric(  # type: ignore[override]  # the peers disagree about the order
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str | None = None,
        dimensions: Sequence[Dimension] | None = None,
    ) -> None:
        kind = MetricTypes.COUNTER if unit in (None, "count") else MetricTypes.GAUGE
        self._add(name, value, unit, idx, dimensions, kind)

    def add_counter(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        dimensions: Sequence[Dimension] | None = None,
    ) -> None:
        self._add(name, value, "count", idx, dimensions, MetricTypes.COUNTER)

    def add_time(  # type: ignore[override]
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "ms",
        dimensions: Sequence[Dimension] | None = None,
    ) -> None:
        """Raises ValueError for a unit that is no time."""
        if unit not in TIME_UNITS:
            raise ValueError("the unit for a timed metric should be one of ['ms', 's']")
        self._add(name, value, unit, idx, dimensions, MetricTypes.GAUGE)

    def add_size(  # type: ignore[override]
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "MB",
        dimensions: Sequence[Dimension] | None = None,
    ) -> None:
        """Raises ValueError for a unit that is no size."""
        if unit not in SIZE_UNITS:
            raise ValueError("The unit for size based metric is one of ['MB','kB', 'GB', 'B']")
        self._add(name, value, unit, idx, dimensions, MetricTypes.GAUGE)

    def add_percent(  # type: ignore[override]
        self,
        name: str,
        value: float,
        idx: int | None = None,
        dimensions: Sequence[Dimension] | None = None,
    ) -> None:
        self._add(name, value, "percent", idx, dimensions, MetricTypes.GAUGE)

    def add_error(
        self, name: str, value: float, dimensions: Sequence[Dimension] | None = None
    ) -> None:
        _check_dimensions(dimensions)
        super().add_error(name, value, dimensions)

    def _add(
        self,
        name: str,
        value: float,
        unit: str | None,
        idx: int | None,
        dimensions: Sequence[Dimension] | None,
        kind: MetricTypes,
    ) -> None:
        _check_dimensions(dimensions)
        super().add_metric(name, value, unit, idx, dimensions, kind)


def _check_dimensions(dimensions: Any) -> None:
    if dimensions is not None and not isinstance(dimensions, list):
        raise ValueError("Please provide a list of dimensions")


class MmsMetric:
    """One value by itself, as users' own tests build them."""

    def __init__(
        self,
        name: str,
        value: float,
        unit: str,
        dimensions: Sequence[Dimension],
        request_id: str | None = None,
        metric_method: str | None = None,
    ) -> None:
        self.name = name
        self.value = value
        self.unit = UNITS.get(unit, unit)
        self.dimensions = dimensions
        self.request_id = request_id
        self.metric_method = metric_method

    def update(self, value: float) -> None:
        """Count on, where that is the metric's method; else set."""
        self.value = self.value + value if self.metric_method == "counter" else value

    def __str__(self) -> str:
        labels = ",".join(map(str, self.dimensions))
        tail = f",{self.request_id}" if self.request_id else ""
        return f"{self.name}.{self.unit}:{self.value}|#{labels}{tail}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "MetricName": self.name,
            "Value": self.value,
            "Unit": self.unit,
            "Dimensions": [{"Name": each.name, "Value": each.value} for each in self.dimensions],
            **({"RequestId": self.request_id} if self.request_id else {}),
        }
