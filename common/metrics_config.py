"""`metrics_config`: which metrics there are, in the peer's file.

    dimensions: [...]               names, only to be referred to by anchors
    ts_metrics:                     the server's own; only those named are shown
      counter: [{name: Requests2XX, unit: Count, dimensions: [Level, Hostname]}]
    model_metrics:                  what handlers may count, with type and unit
      gauge: [{name: HandlerTime, unit: ms, dimensions: [ModelName, Level]}]

Source: contracts/torchserve.md 10.3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

from stoker.errors import SettingsError

KINDS: Final = ("counter", "gauge", "histogram")
MAX_FILE_BYTES: Final = 1 << 20
MAX_METRICS: Final = 1000


class MetricDefinition(NamedTuple):
    """A handler's metric; `labels` without the host's name, which always follows."""

    name: str
    kind: str
    unit: str
    labels: list[str]


class MetricsConfig(NamedTuple):
    """What the file says.

    Attributes:
        server: The server's metrics that are shown; None: all.
        model: The handlers' metrics.
    """

    server: frozenset[str] | None
    model: tuple[MetricDefinition, ...]


#: Without a file: what the packaged file of the peer says.
PACKAGED: Final = MetricsConfig(
    None,
    (
        MetricDefinition("HandlerTime", "gauge", "ms", ["ModelName", "Level"]),
        MetricDefinition("PredictionTime", "gauge", "ms", ["ModelName", "Level"]),
    ),
)


def read_metrics_config(path: Path | None) -> MetricsConfig:
    """Raises SettingsError, with what is wrong in the file."""
    if path is None:
        return PACKAGED
    import yaml  # a megabyte that few servers need

    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise _refuse(path, "it is too large")
        document = yaml.safe_load(text)
    except (OSError, yaml.YAMLError, RecursionError) as error:
        raise _refuse(path, " ".join(str(error).split())) from None
    if not isinstance(document, dict):
        raise _refuse(path, "it is no mapping")
    server = _definitions(path, document, "ts_metrics")
    model = _definitions(path, document, "model_metrics")
    names = [definition.name for definition in (*server, *model)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise _refuse(path, f"{', '.join(twice)} is there twice")
    return MetricsConfig(frozenset(definition.name for definition in server), tuple(model))


def _definitions(path: Path, document: dict[Any, Any], section: str) -> list[MetricDefinition]:
    kinds = document.get(section)
    if not isinstance(kinds, dict):
        raise _refuse(path, f"{section} is missing")
    found: list[MetricDefinition] = []
    for kind in KINDS:
        for row in kinds.get(kind) or ():
            name, unit = _text(row, "name"), _text(row, "unit")
            if not name or not unit:
                raise _refuse(path, f"a {kind} in {section} has no name or no unit")
            labels = [str(label) for label in row.get("dimensions") or ()]
            if section == "model_metrics":
                labels = [label for label in labels if label != "Hostname"]
            found.append(MetricDefinition(name, kind, unit, labels))
            if len(found) > MAX_METRICS:
                raise _refuse(path, f"there are more than {MAX_METRICS} metrics in {section}")
    return found


def _text(row: Any, key: str) -> str:
    value = row.get(key) if isinstance(row, dict) else None
    return value if isinstance(value, str) else ""


def _refuse(path: Path, reason: str) -> SettingsError:
    return SettingsError(
        f"metrics_config {path}: {reason}", setting="metrics_config", source=str(path)
    )
