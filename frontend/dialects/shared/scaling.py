"""Scaling workers: the parameters that the peers have in common, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stoker.errors import InvalidParameter
from stoker.frontend.routes import Parameter, Values

SCALE_PARAMETERS: Final = (
    Parameter("min_worker", "integer", "Least workers.", default=1),
    Parameter("max_worker", "integer", "Most workers; default min_worker."),
    Parameter("synchronous", "boolean", "Answer when the workers are ready.", default=False),
    Parameter(
        "timeout",
        "integer",
        "Seconds a worker may take for its request in hand; 0 = none, -1 = no limit.",
        default=-1,
    ),
)


def read_scale(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    """The verb's arguments, as far as these parameters say them.  Raises InvalidParameter."""
    least = values["min_worker"]
    most = least if values["max_worker"] is None else values["max_worker"]
    if least < 0:
        raise InvalidParameter("min_worker cannot be negative.", parameter="min_worker")
    if most < least:
        raise InvalidParameter("max_worker cannot be less than min_worker.", parameter="max_worker")
    return {
        "model": path["model_name"],
        "version": path.get("model_version"),
        "min_workers": least,
        "max_workers": most,
        "synchronous": values["synchronous"],
        "drain_timeout_s": None if values["timeout"] < 0 else float(values["timeout"]),
    }
