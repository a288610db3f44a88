"""The inference listener's rows: contracts/torchserve.md 2.1, 2.2."""

from __future__ import annotations

from typing import Any

from stoker.frontend.dialects.torchserve.replies import QUICK_S, status
from stoker.frontend.dialects.torchserve.standing import description_routes
from stoker.frontend.routes import (
    ALL_METHODS,
    ANY,
    Description,
    Operation,
    Prediction,
    Reply,
    Route,
)
from stoker.settings import Settings


def inference_routes(settings: Settings) -> tuple[Route, ...]:
    health = Operation("health", lambda values, path: {}, _write_health, QUICK_S)
    predict = Prediction(headers=(("explain", "False"),), has_url_path=True)
    of_model = Description(of_model=True, title="RESTful API for: {model_name}")
    say = "Predict with the default version of a model."
    say_version = "Predict with one version of a model."
    return (
        *description_routes(is_described=True),
        Route(ALL_METHODS, "/ping", health, "ping", "Is the server healthy?"),
        Route(ANY, "/predictions/{model_name}", predict, "predictions", say),
        Route(("OPTIONS",), "/predictions/{model_name}", of_model),
        Route(
            ANY,
            "/predictions/{model_name}/{model_version}",
            predict,
            "version_predictions",
            say_version,
        ),
        Route(ANY, "/predictions/{model_name}/{model_version}/{rest:path}", predict),
    )


def _write_health(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    return status("Healthy") if outcome["is_healthy"] else status("Unhealthy", 500)
