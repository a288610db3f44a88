"""Registering a model: contracts/torchserve.md 3.1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stoker.errors import InvalidParameter
from stoker.frontend.dialects.torchserve.replies import PARTIAL, PATIENT_S, SCHEDULED, status
from stoker.frontend.dialects.torchserve.shapes import STAFFING
from stoker.frontend.routes import Operation, Parameter, Reply, Values
from stoker.names import check_model_name, check_version
from stoker.settings import Settings


def register_operation(settings: Settings) -> Operation:
    return Operation(
        "register", _read, _write, PATIENT_S, STAFFING, _parameters(settings), takes_json=True
    )


def _parameters(settings: Settings) -> tuple[Parameter, ...]:
    return (
        Parameter("url", "string", "Archive: a name in the model store, or a URL."),
        Parameter("model_name", "string", "Name of the model; default the archive's."),
        Parameter("model_version", "string", "Version; default the archive's, or 1.0."),
        Parameter("handler", "string", "Entry point, like `module:function`."),
        Parameter("runtime", "string", "Runtime of the handler; default the archive's."),
        Parameter("batch_size", "integer", "Most requests in one batch.", minimum=1),
        Parameter("max_batch_delay", "integer", "Wait for a batch, in ms.", minimum=0),
        Parameter(
            "initial_workers",
            "integer",
            "Workers to start.",
            default=settings.default_workers_per_model,
        ),
        Parameter(
            "synchronous",
            "boolean",
            "Answer when the workers are ready.",
            default=settings.default_synchronous,
        ),
        Parameter("response_timeout", "integer", "Longest batch, in seconds.", minimum=1),
        Parameter("startup_timeout", "integer", "Longest load, in seconds.", minimum=1),
        Parameter("s3_sse_kms", "boolean", "The archive is encrypted by S3.", default=False),
    )


def _read(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    model, version = values["model_name"] or None, values["model_version"] or None
    handler = values["handler"] or None
    # No archive at all is ours: the handler comes from PYTHONPATH.
    if values["url"] is None:
        if handler is None:
            raise InvalidParameter("Parameter url is required.", parameter="url")
        if model is None:
            raise InvalidParameter("Parameter model_name is required.", parameter="model_name")
    if model is not None:
        check_model_name(model)
    if version is not None:
        check_version(version)
    delay_ms = values["max_batch_delay"]
    return {
        "url": values["url"],
        "model": model,
        "version": version,
        "handler": handler,
        "runtime": values["runtime"] or None,
        "batch_size": values["batch_size"],
        "max_batch_delay_s": None if delay_ms is None else delay_ms / 1000,
        "initial_workers": max(0, values["initial_workers"]),
        "synchronous": values["synchronous"],
        "response_timeout_s": _seconds(values["response_timeout"]),
        "startup_timeout_s": _seconds(values["startup_timeout"]),
        "s3_sse_kms": values["s3_sse_kms"],
    }


def _seconds(value: int | None) -> float | None:
    return None if value is None else float(value)


def _write(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    if outcome["outcome"] == "scheduled":
        return SCHEDULED
    if outcome["outcome"] == "partial":
        return PARTIAL
    said = f'Model "{outcome["model"]}" Version: {outcome["version"]} registered with '
    if outcome["outcome"] == "ready":
        return status(f"{said}{outcome['workers']} initial workers")
    return status(f"{said}0 initial workers. Use scale workers API to add workers for the model.")
