"""Scaling a version's workers: contracts/torchserve.md 3.5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stoker.errors import InvalidParameter
from stoker.frontend.dialects.torchserve.replies import PARTIAL, PATIENT_S, SCHEDULED, status
from stoker.frontend.dialects.torchserve.shapes import STAFFING
from stoker.frontend.routes import Operation, Parameter, Reply, Values

_PARAMETERS: Final = (
    Parameter("min_worker", "integer", "Least workers.", default=1),
    Parameter("max_worker", "integer", "Most workers; default min_worker."),
    Parameter("synchronous", "boolean", "Answer when the workers are ready.", default=False),
    Parameter(
        "timeout",
        "integer",
        "Seconds a worker may take for its request in hand; 0 = none, -1 = no limit.",
        default=-1,
    ),
    Parameter("model_version", "string", "Version, where the path names none."),
)


def scale_operation() -> Operation:
    return Operation("scale", _read, _write, PATIENT_S, STAFFING, _PARAMETERS)


def _read(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    least = values["min_worker"]
    most = least if values["max_worker"] is None else values["max_worker"]
    if least < 0:
        raise InvalidParameter("min_worker cannot be negative.", parameter="min_worker")
    if most < least:
        raise InvalidParameter("max_worker cannot be less than min_worker.", parameter="max_worker")
    return {
        "model": path["model_name"],
        "version": path.get("model_version") or values["model_version"] or None,
        "min_workers": least,
        "max_workers": most,
        "synchronous": values["synchronous"],
        "drain_timeout_s": None if values["timeout"] < 0 else float(values["timeout"]),
    }


def _write(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    if outcome["outcome"] == "scheduled":
        return SCHEDULED
    if outcome["outcome"] == "partial":
        return PARTIAL
    version = f", version: {arguments['version']}" if arguments["version"] else ""
    return status(
        f"Workers scaled to {outcome['min_workers']} for model: {arguments['model']}{version}"
    )
