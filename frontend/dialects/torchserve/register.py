"""Registering a model: contracts/torchserve.md 3.1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stoker.frontend.dialects.shared.registering import (
    read_registration,
    register_parameters,
    seconds,
)
from stoker.frontend.dialects.shared.replies import PATIENT_S, status
from stoker.frontend.dialects.torchserve.staffing import PARTIAL, SCHEDULED, STAFFING
from stoker.frontend.routes import Operation, Parameter, Reply, Values
from stoker.names import check_version
from stoker.settings import Settings


def register_operation(settings: Settings) -> Operation:
    return Operation(
        "register", _read, _write, PATIENT_S, STAFFING, _parameters(settings), takes_json=True
    )


def _parameters(settings: Settings) -> tuple[Parameter, ...]:
    return (
        *register_parameters(settings),
        Parameter("model_version", "string", "Version; default the archive's, or 1.0."),
        Parameter("startup_timeout", "integer", "Longest load, in seconds.", minimum=1),
        Parameter("s3_sse_kms", "boolean", "The archive is encrypted by S3.", default=False),
    )


def _read(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    version = values["model_version"] or None
    arguments = read_registration(values)
    if version is not None:
        check_version(version)
    return {
        **arguments,
        "version": version,
        "startup_timeout_s": seconds(values["startup_timeout"]),
        "s3_sse_kms": values["s3_sse_kms"],
    }


def _write(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    if outcome["outcome"] == "scheduled":
        return SCHEDULED
    if outcome["outcome"] == "partial":
        return PARTIAL
    said = f'Model "{outcome["model"]}" Version: {outcome["version"]} registered with '
    if outcome["outcome"] == "ready":
        return status(f"{said}{outcome['workers']} initial workers")
    return status(f"{said}0 initial workers. Use scale workers API to add workers for the model.")
