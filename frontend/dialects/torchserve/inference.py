"""The inference listener's rows: contracts/torchserve.md 2.1, 2.2.

The method of a prediction is never checked; OPTIONS asks for a description.
"""

from __future__ import annotations

from typing import Any, Final

from stoker.frontend.dialects.shared.replies import QUICK_S, status
from stoker.frontend.dialects.shared.sagemaker import sagemaker_health, sagemaker_routes
from stoker.frontend.dialects.shared.shapes import STATUS
from stoker.frontend.dialects.shared.standing import description_routes
from stoker.frontend.dialects.torchserve.kserve import kserve_routes, open_inference_routes
from stoker.frontend.dialects.torchserve.workflows import workflow_inference_routes
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

_PREDICT: Final = Prediction(headers=(("explain", "False"),), has_url_path=True)
_EXPLAIN: Final = Prediction(headers=(("explain", "True"),), has_url_path=True, is_alone=True)
#: The oldest routes: nothing is added to the headers, and the query counts.
_LEGACY: Final = Prediction(takes_query=True)
_OF_MODEL: Final = Description(of_model=True, title="RESTful API for: {model_name}")


def inference_routes(settings: Settings) -> tuple[Route, ...]:
    predictions = (
        *_versioned_routes("predictions", _PREDICT, "Predict"),
        *_versioned_routes("explanations", _EXPLAIN, "Explain a prediction"),
        *kserve_routes(),
        *sagemaker_routes(settings),
        Route(ANY, "/{model_name}/predict", _LEGACY),
        Route(ANY, "/{model_name}/{model_version}/predict", _LEGACY),
    )
    health = _health() if settings.sagemaker == "off" else sagemaker_health(settings)
    return (
        *description_routes(is_described=True),
        Route(ALL_METHODS, "/ping", health, "ping", "Is the server healthy?", is_probe=True),
        *health_routes(),
        *(open_inference_routes() if settings.ts_open_inference_protocol else ()),
        *predictions,
        *workflow_inference_routes(),
        *(
            Route(("OPTIONS",), route.path, _OF_MODEL)
            for route in predictions
            if isinstance(route.serves, Prediction) and "{model_name}" in route.path
        ),
    )


def _versioned_routes(name: str, serves: Prediction, say: str) -> tuple[Route, ...]:
    model = f"/{name}/{{model_name}}"
    version = f"{model}/{{model_version}}"
    return (
        Route(ANY, model, serves, name, f"{say} with the default version of a model."),
        Route(ANY, version, serves, f"version_{name}", f"{say} with one version of a model."),
        Route(ANY, f"{version}/{{rest:path}}", serves),
    )


def _health() -> Operation:
    outcomes = (
        Outcome(200, "Every model has the workers it should have.", STATUS),
        Outcome(500, "Some model has not.", STATUS),
    )
    return Operation("health", lambda values, path: {}, _write_health, QUICK_S, outcomes)


def _write_health(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    return status("Healthy") if outcome["is_healthy"] else status("Unhealthy", 500)
