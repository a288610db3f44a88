"""The inference listener's rows: contracts/mms.md 5.

The method of a prediction is never checked; OPTIONS asks for a description.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stoker.frontend.dialects.shared.replies import QUICK_S, status
from stoker.frontend.dialects.shared.sagemaker import execution_parameters, sagemaker_health
from stoker.frontend.dialects.shared.shapes import STATUS
from stoker.frontend.dialects.shared.standing import description_routes
from stoker.frontend.health import health_routes
from stoker.frontend.routes import (
    ALL_METHODS,
    ANY,
    Description,
    Operation,
    Outcome,
    Prediction,
    Reply,
    Route,
)
from stoker.settings import Settings

#: Its query is dropped, and what follows the model's name means nothing.
_PREDICT: Final = Prediction(has_versions=False)
_INVOKE: Final = Prediction(takes_query=True)
_INVOCATIONS: Final = Prediction(takes_query=True, model_input="model_name", looks_into_body=False)
_OF_MODEL: Final = Description(of_model=True, title="RESTful API for: {model_name}")
_INVOKED: Final = "Predict with the model that is named, or the only one there is."


def inference_routes(settings: Settings) -> tuple[Route, ...]:
    oldest, newest = "/{model_name}/predict", "/predictions/{model_name}"
    invoke = "/models/{model_name}/invoke"
    health = _health() if settings.sagemaker == "off" else sagemaker_health(settings)
    return (
        *description_routes(is_described=True, names=("apiDescription", "apiDescription")),
        # It has no paths below it, and says so with 405.
        Route((), "/api-description/{rest:path}", Description()),
        Route(ANY, oldest, _INVOKE, "predict", "Predict.", is_deprecated=True),
        Route(ALL_METHODS, "/ping", health, "ping", "Is the server healthy?", is_probe=True),
        Route(ANY, newest, _PREDICT, "predictions", "Predict."),
        Route(("OPTIONS",), newest, _OF_MODEL, "predictionsApi", "Describe a model's API."),
        Route(ANY, f"{newest}/{{rest:path}}", _PREDICT),
        Route(ANY, "/invocations", _INVOCATIONS, "invocations", _INVOKED),
        Route(ANY, invoke, _INVOKE, "invocations", _INVOKED),
        *(
            Route(("OPTIONS",), path, _OF_MODEL)
            for path in (oldest, f"{newest}/{{rest:path}}", invoke)
        ),
        *execution_parameters(settings),
        *health_routes(),
    )


def _health() -> Operation:
    outcome = Outcome(200, "How many of the wanted workers there are, in a word.", STATUS)
    return Operation("health", _read_health, _write_health, QUICK_S, (outcome,))


def _read_health(values: Mapping[str, Any], path: Mapping[str, str]) -> dict[str, Any]:
    return {}


def _write_health(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    wanted, running = outcome["wanted_workers"], outcome["running_workers"]
    if running >= wanted:
        return status("Healthy")
    return status("Partial Healthy" if running else "Unhealthy")
