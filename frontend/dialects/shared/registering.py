"""Registering a model: the parameters that the peers have in common, and what they mean."""

from __future__ import annotations

from typing import Any

from stoker.errors import InvalidParameter
from stoker.frontend.routes import Parameter, Values
from stoker.names import check_model_name
from stoker.settings import Settings


def register_parameters(settings: Settings) -> tuple[Parameter, ...]:
    return (
        Parameter("url", "string", "Archive: a name in the model store, or a URL."),
        Parameter("model_name", "string", "Name of the model; default the archive's."),
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
            default=settings.default_synchronous or False,
        ),
        Parameter("response_timeout", "integer", "Longest batch, in seconds.", minimum=1),
    )


def read_registration(values: Values) -> dict[str, Any]:
    """The verb's arguments, as far as these parameters say them.

    Raises:
        InvalidParameter: Nothing could be registered so.
    """
    model, handler = values["model_name"] or None, values["handler"] or None
    # No archive at all is ours: the handler comes from PYTHONPATH.
    if values["url"] is None:
        if handler is None:
            raise InvalidParameter("Parameter url is required.", parameter="url")
        if model is None:
            raise InvalidParameter("Parameter model_name is required.", parameter="model_name")
    if model is not None:
        check_model_name(model)
    delay_ms = values["max_batch_delay"]
    return {
        "url": values["url"],
        "model": model,
        "handler": handler,
        "runtime": values["runtime"] or None,
        "batch_size": values["batch_size"],
        "max_batch_delay_s": None if delay_ms is None else delay_ms / 1000,
        "initial_workers": max(0, values["initial_workers"]),
        "synchronous": values["synchronous"],
        "response_timeout_s": seconds(values["response_timeout"]),
    }


def seconds(value: int | None) -> float | None:
    return None if value is None else float(value)
