"""Scaling a version's workers: contracts/torchserve.md 3.5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stoker.frontend.dialects.shared.replies import PATIENT_S, status
from stoker.frontend.dialects.shared.scaling import SCALE_PARAMETERS, read_scale
from stoker.frontend.dialects.torchserve.staffing import PARTIAL, SCHEDULED, STAFFING
from stoker.frontend.routes import Operation, Parameter, Reply, Values

_PARAMETERS: Final = (
    *SCALE_PARAMETERS,
    Parameter("model_version", "string", "Version, where the path names none."),
)


def scale_operation() -> Operation:
    return Operation("scale", _read, _write, PATIENT_S, STAFFING, _PARAMETERS)


def _read(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    arguments = read_scale(values, path)
    arguments["version"] = arguments["version"] or values["model_version"] or None
    return arguments


def _write(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    if outcome["outcome"] == "scheduled":
        return SCHEDULED
    if outcome["outcome"] == "partial":
        return PARTIAL
    version = f", version: {arguments['version']}" if arguments["version"] else ""
    return status(
        f"Workers scaled to {outcome['min_workers']} for model: {arguments['model']}{version}"
    )
