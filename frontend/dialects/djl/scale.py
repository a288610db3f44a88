"""Scaling and tuning what is served: contracts/djl-serving.md 4.3.

What a call does not name stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stoker.errors import InvalidParameter
from stoker.frontend.dialects.djl.register import kept
from stoker.frontend.dialects.djl.shapes import SCALED
from stoker.frontend.dialects.shared.replies import PATIENT_S, status
from stoker.frontend.routes import Operation, Parameter, Reply, Values

_PARAMETERS: Final = (
    Parameter("min_worker", "integer", "Least workers; -1 = as it is."),
    Parameter("max_worker", "integer", "Most workers; -1 = as it is."),
    Parameter("batch_size", "integer", "Most requests in one batch.", minimum=1),
    Parameter("max_batch_delay", "integer", "Wait for a batch, in ms.", minimum=0),
    Parameter("max_idle_time", "integer", "Idle seconds of an extra worker.", minimum=0),
    Parameter("device", "string", "The device whose workers are meant; default all."),
    Parameter("synchronous", "boolean", "Answer when the workers are ready.", default=False),
)
_UPDATED: Final = status("Worker updated", 202)


def scale_operation() -> Operation:
    return Operation("scale", _read, _write, PATIENT_S, SCALED, _PARAMETERS)


def _read(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    least, most = kept(values["min_worker"]), kept(values["max_worker"])
    if least is not None and most is not None and most < least:
        raise InvalidParameter("max_worker cannot be less than min_worker.", parameter="max_worker")
    delay_ms, idle_s = values["max_batch_delay"], values["max_idle_time"]
    return {
        "model": path["model_name"],
        "version": path.get("model_version"),
        "all": True,
        "or_workflow": True,
        "min_workers": least,
        "max_workers": most,
        "per_device": True,
        "devices": values["device"] or None,
        "batch_size": values["batch_size"],
        "max_batch_delay_s": None if delay_ms is None else delay_ms / 1000,
        "max_idle_s": None if idle_s is None else float(idle_s),
        "synchronous": values["synchronous"],
    }


def _write(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    if outcome["outcome"] in ("scheduled", "partial"):
        return _UPDATED
    counts = (arguments["min_workers"], arguments["max_workers"])
    least, most = (-1 if count is None else count for count in counts)
    # The request's own numbers, -1 for what it does not say: the peer's.
    return status(
        f'Workflow "{arguments["model"]}" worker scaled. New Worker configuration '
        f"min workers:{least} max workers:{most}"
    )
