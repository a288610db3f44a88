"""What handlers count and time: the series of all workers, put together.

Counters of several workers are added, of a gauge the latest value counts.
Bounded per version, since names and labels are user code's; what belongs to a
version goes with it.

Source: contracts/torchserve.md 10.1-10.3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from stoker.logs import get_logger
from stoker.metrics_config import MetricDefinition
from stoker.supervisor.families import OURS, PEERS, peer_family
from stoker.supervisor.versions import VersionKey
from stoker.wire.frames import HISTOGRAM_BOUNDS, Measurement

log = get_logger("metrics")

MAX_SERIES: Final = 1000
HOSTNAME: Final = "Hostname"
_ODD: Final = re.compile(r"[^a-zA-Z0-9_:]")
_ODD_LABEL: Final = re.compile(r"[^a-zA-Z0-9_]")

#: Name, type, names of labels.
Shape = tuple[str, str, tuple[str, ...]]
Series = tuple[Shape, tuple[str, ...]]


class HandlerMetrics:
    """All versions' series.

    Args:
        definitions: Of the metrics that the configuration names.
        is_open: Others are kept, too, with the labels they come with.
    """

    def __init__(
        self, definitions: Iterable[MetricDefinition], hostname: str, *, is_open: bool
    ) -> None:
        self._hostname = hostname
        self._is_open = is_open
        self._versions: dict[VersionKey, dict[Series, list[Any]]] = {}
        #: The first one to use a name says what it is.
        self._shapes: dict[str, Shape] = {}
        self._units: dict[str, str] = {}
        self._refused: set[str] = set()
        for name, kind, unit, labels in definitions:
            known = _name(name)
            self._shapes[known] = (known, kind, _label_names(labels))
            self._units[known] = unit
        self._fixed = frozenset(self._shapes)

    def take(self, key: VersionKey, rows: Iterable[Measurement]) -> None:
        """What a worker of that version has measured since it last said so."""
        series = self._versions.setdefault(key, {})
        for kind, told, unit, labels, values, number, counts in rows:
            shape = self._shape(told, kind, unit, labels)
            if shape is None:
                continue
            given = dict(zip(_label_names(labels), values, strict=False))
            one = (shape, tuple(given.get(label, "") for label in shape[2]))
            known = series.get(one)
            if known is None:
                if len(series) >= MAX_SERIES:
                    self._refuse(shape[0], "too many series", key)
                    continue
                known = series[one] = [0.0, [0] * (len(HISTOGRAM_BOUNDS) + 1)]
            if kind == "gauge":
                known[0] = number
            elif number >= 0 or kind == "histogram":
                known[0] += number
                for index, count in enumerate(counts[: len(known[1])]):
                    known[1][index] += count

    def forget(self, key: VersionKey) -> None:
        """The version has gone."""
        self._versions.pop(key, None)

    def _shape(self, told: str, kind: str, unit: str, labels: list[str]) -> Shape | None:
        name = _name(told)
        shape = self._shapes.get(name)
        if shape is None:
            if not self._is_open or len(self._shapes) >= MAX_SERIES:
                return None
            shape = (name, kind, _label_names(labels))
            if name in PEERS or name in OURS:
                self._refuse(name, "the name is the server's own", None)
                return None
            self._shapes[name] = shape
            self._units[name] = unit
        if shape[1] != kind:
            self._refuse(name, f"it is a {shape[1]}, not a {kind}", None)
            return None
        return shape

    def _refuse(self, name: str, reason: str, key: VersionKey | None) -> None:
        if name not in self._refused and len(self._refused) < MAX_SERIES:
            self._refused.add(name)
            model = "" if key is None else key.model
            log.warning("a handler's metric is not kept", metric=name, reason=reason, model=model)

    def families(self) -> list[list[Any]]:
        """As `families.Family.row` has them; configured ones also without samples."""
        merged: dict[str, dict[tuple[str, ...], list[Any]]] = {name: {} for name in self._fixed}
        for series in self._versions.values():
            for ((name, kind, _), values), (number, counts) in series.items():
                known = merged.setdefault(name, {}).get(values)
                if known is None or kind == "gauge":
                    merged[name][values] = [number, counts]
                else:
                    total = [a + b for a, b in zip(known[1], counts, strict=True)]
                    merged[name][values] = [known[0] + number, total]
        rows = []
        for name in sorted(merged):
            _, kind, labels = self._shapes[name]
            family = peer_family(name, kind, self._units[name], (*labels, HOSTNAME))
            is_histogram = kind == "histogram"
            samples = [
                [[*values, self._hostname], [counts, number] if is_histogram else number]
                for values, (number, counts) in merged[name].items()
            ]
            rows.append(family.row(samples, HISTOGRAM_BOUNDS if is_histogram else ()))
        return rows


def _name(told: str) -> str:
    name = _ODD.sub("_", told)
    return f"_{name}" if not name or name[0].isdigit() else name


def _label_names(labels: Iterable[str]) -> tuple[str, ...]:
    names = (_ODD_LABEL.sub("_", label) for label in labels if label != HOSTNAME)
    return tuple(f"_{name}" if not name or name[0].isdigit() else name for name in names)
