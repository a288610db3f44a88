"""Registering a model: contracts/mms.md 6.1.  A name is taken whatever its versions are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from stoker.frontend.dialects.mms.staffing import STAFFING, about_workers
from stoker.frontend.dialects.shared.registering import read_registration, register_parameters
from stoker.frontend.dialects.shared.replies import PATIENT_S, status
from stoker.frontend.routes import Operation, Parameter, Reply, Values
from stoker.settings import Settings

_RUNTIMES: Final = ("PYTHON", "PYTHON2", "PYTHON3")


def register_operation(settings: Settings) -> Operation:
    return Operation(
        "register", _read, _write, PATIENT_S, STAFFING, _parameters(settings), takes_json=True
    )


def _parameters(settings: Settings) -> tuple[Parameter, ...]:
    common = tuple(
        replace(item, choices=_RUNTIMES) if item.name == "runtime" else item
        for item in register_parameters(settings)
    )
    preload = Parameter(
        "preload_model",
        "boolean",
        "Load once in a process of which the workers are forked.",
        default=settings.preload_model,
    )
    return (*common, preload)


def _read(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    return {
        **read_registration(values),
        "preload": "on" if values["preload_model"] else "off",
        "takes_free_name": True,
    }


def _write(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    if outcome["outcome"] == "registered":
        return status(f'Model "{outcome["model"]}" registered')
    return about_workers(outcome)
