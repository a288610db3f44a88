"""Scaling a model's workers: contracts/mms.md 6.2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stoker.errors import InvalidParameter
from stoker.frontend.dialects.mms.staffing import STAFFING, about_workers
from stoker.frontend.dialects.shared.replies import PATIENT_S
from stoker.frontend.dialects.shared.scaling import SCALE_PARAMETERS, read_scale
from stoker.frontend.routes import Operation, Parameter, Reply, Values

_PARAMETERS: Final = (
    *SCALE_PARAMETERS,
    Parameter(
        "number_gpu",
        "integer",
        "Workers that use a GPU each; the rest uses none.  Default: whatever there is.",
    ),
)


def scale_operation() -> Operation:
    return Operation("scale", _read, _write, PATIENT_S, STAFFING, _PARAMETERS)


def _read(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    number_gpu = values["number_gpu"]
    if number_gpu is not None and number_gpu < 0:
        raise InvalidParameter("number_gpu cannot be negative.", parameter="number_gpu")
    return {**read_scale(values, path), "number_gpu": number_gpu}


def _write(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    return about_workers(outcome)
