"""`context.metrics`: what a handler counts and times.

Values are kept.  Every update is added to what the supervisor is told about
once a second (`measurements.py`), or, where metrics go to logs, printed as one
`[METRICS]` line on stdout, which is where it reads the worker's words.

Source: contracts/torchserve.md 7.5.
"""

from __future__ import annotations

import enum
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from stoker.worker.measurements import Pending

UNITS: Final[dict[str, str]] = {
    "ms": "Milliseconds",
    "s": "Seconds",
    "percent": "Percent",
    "count": "Count",
    "MB": "Megabytes",
    "GB": "Gigabytes",
    "kB": "Kilobytes",
    "B": "Bytes",
    "": "unit",
}
TIME_UNITS: Final = ("ms", "s")
SIZE_UNITS: Final = ("MB", "kB", "GB", "B")
#: Appended to every metric that does not name them.
MODEL_DIMENSIONS: Final = ("ModelName", "Level")


class MetricTypes(enum.Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Dimension(NamedTuple):
    """One label of a metric: a name and a value."""

    name: str
    value: str

    def __str__(self) -> str:
        return f"{self.name}:{self.value}"


class UnknownMetric(KeyError):
    """`get_metric` was asked for a metric that nobody defined."""


class Metric:
    """One named series per set of dimension values."""

    def __init__(
        self,
        metric_name: str,
        unit: str | None,
        dimension_names: Sequence[str] = (),
        metric_type: MetricTypes = MetricTypes.COUNTER,
        pending: Pending | None = None,
    ) -> None:
        self._pending = pending
        self.metric_name = metric_name
        self.unit = UNITS.get(unit or "", unit or "")
        self.dimension_names = tuple(dimension_names)
        self.metric_type = metric_type
        self.values: dict[tuple[str, ...], float] = {}

    def add_or_update(
        self, value: float, dimension_values: Sequence[str] = (), request_id: str = ""
    ) -> None:
        """Count `value` on, or set it, and say so."""
        key = tuple(str(item) for item in dimension_values)
        if len(key) != len(self.dimension_names):
            sys.stderr.write(
                f"stoker: metric {self.metric_name} takes {len(self.dimension_names)} dimension "
                f"values, got {len(key)}; the update is dropped\n"
            )
            return
        if self.metric_type is MetricTypes.COUNTER:
            if value < 0:
                sys.stderr.write(
                    f"stoker: counter {self.metric_name} cannot go down; the update is dropped\n"
                )
                return
            self.values[key] = self.values.get(key, 0.0) + value
        else:
            self.values[key] = value
        if self._pending is None:
            self._print(value, zip(self.dimension_names, key, strict=True), request_id)
        else:
            kind = self.metric_type.value
            about = (kind, self.metric_name, self.unit, self.dimension_names, key)
            self._pending.note(*about, value)

    def update(
        self, value: float, request_id: str = "", dimensions: Sequence[Dimension] = ()
    ) -> None:
        """As `add_or_update`, with the dimensions as objects; missing ones are empty."""
        given = {item.name: item.value for item in dimensions}
        self.add_or_update(
            value, [given.get(name, "") for name in self.dimension_names], request_id
        )

    def _print(self, value: float, dimensions: Any, request_id: str) -> None:
        labels = ",".join(f"{name}:{text}" for name, text in dimensions)
        tail = f",{request_id}" if request_id else ""
        sys.stdout.write(
            f"[METRICS]{self.metric_name}.{self.unit}:{value}|#{labels}"
            f"|#type:{self.metric_type.name}|#hostname:{_HOSTNAME},{int(time.time())}{tail}\n"
        )


class MetricsCache:
    """Every metric of one worker, by type and name."""

    def __init__(
        self,
        model_name: str = "",
        request_ids: Mapping[int, str] | None = None,
        pending: Pending | None = None,
    ) -> None:
        self.model_name = model_name
        #: None: updates are printed.
        self.pending = pending
        self.cache: dict[MetricTypes, dict[str, Metric]] = {kind: {} for kind in MetricTypes}
        self._request_ids = request_ids
        self._context: Any = None

    @property
    def store(self) -> list[Metric]:
        """All metrics, in the order of their types."""
        return [metric for metrics in self.cache.values() for metric in metrics.values()]

    @property
    def request_ids(self) -> Mapping[int, str] | None:
        if self._request_ids is None and self._context is not None:
            return self._context.request_ids  # type: ignore[no-any-return]
        return self._request_ids

    @request_ids.setter
    def request_ids(self, request_ids: Mapping[int, str] | None) -> None:
        self._request_ids = request_ids

    def set_request_ids(self, request_ids: Mapping[int, str] | None) -> None:
        self._request_ids = request_ids

    def request_ids_of(self, context: Any) -> None:
        """Ask `context` for the ids when they are needed, not before every batch."""
        self._context = context

    # -- defining ----------------------------------------------------------------

    def add_metric_to_cache(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Sequence[str] = (),
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> Metric:
        metric = self.cache[metric_type].get(metric_name)
        if metric is None:
            metric = Metric(metric_name, unit, dimension_names, metric_type, self.pending)
            self.cache[metric_type][metric_name] = metric
        return metric

    def get_metric(
        self, metric_name: str, metric_type: MetricTypes = MetricTypes.COUNTER
    ) -> Metric:
        """Raises UnknownMetric."""
        try:
            return self.cache[metric_type][metric_name]
        except KeyError:
            raise UnknownMetric(f"no {metric_type.value} metric {metric_name!r}") from None

    # -- updating ----------------------------------------------------------------

    def add_metric(
        self,
        name: str,
        value: float,
        unit: str | None,
        idx: int | None = None,
        dimensions: Sequence[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> None:
        labels = list(dimensions or ())
        names = {label.name for label in labels}
        for label in (Dimension("ModelName", self.model_name), Dimension("Level", "Model")):
            if label.name not in names:
                labels.append(label)
        self._update(name, value, unit, idx, labels, metric_type)

    def add_counter(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        dimensions: Sequence[Dimension] | None = None,
    ) -> None:
        self.add_metric(name, value, "count", idx, dimensions, MetricTypes.COUNTER)

    def add_time(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "ms",
        dimensions: Sequence[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """Raises ValueError for a unit that is no time."""
        _check_unit(unit, TIME_UNITS)
        self.add_metric(name, value, unit, idx, dimensions, metric_type)

    def add_size(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "MB",
        dimensions: Sequence[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """Raises ValueError for a unit that is no size."""
        _check_unit(unit, SIZE_UNITS)
        self.add_metric(name, value, unit, idx, dimensions, metric_type)

    def add_percent(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        dimensions: Sequence[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        self.add_metric(name, value, "percent", idx, dimensions, metric_type)

    def add_error(
        self, name: str, value: float, dimensions: Sequence[Dimension] | None = None
    ) -> None:
        labels = [*(dimensions or ()), Dimension("Level", "Error")]
        self._update(name, value, "", None, labels, MetricTypes.COUNTER)

    def _update(
        self,
        name: str,
        value: float,
        unit: str | None,
        idx: int | None,
        labels: Sequence[Dimension],
        metric_type: MetricTypes,
    ) -> None:
        metric = self.add_metric_to_cache(
            name, unit or "", [label.name for label in labels], metric_type
        )
        metric.add_or_update(value, [label.value for label in labels], self._ids(idx))

    def _ids(self, idx: int | None) -> str:
        """The id of one request, or of all in the batch."""
        request_ids = self.request_ids
        if not request_ids:
            return ""
        if idx is None:
            return ",".join(request_ids.values())
        return request_ids.get(idx, "")


def _check_unit(unit: str, allowed: Sequence[str]) -> None:
    if unit not in allowed:
        raise ValueError(f"the unit must be one of {', '.join(allowed)}, not {unit!r}")


_HOSTNAME: Final = socket.gethostname()
