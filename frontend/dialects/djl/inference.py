"""The inference rows: contracts/djl-serving.md 3.

The method of a prediction is not checked; OPTIONS asks whether the model is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from stoker.frontend.dialects.djl.describe import acknowledge_operation, status_word
from stoker.frontend.dialects.djl.management import DESCRIPTIONS
from stoker.frontend.dialects.djl.shapes import PING
from stoker.frontend.dialects.shared.replies import QUICK_S
from stoker.frontend.health import health_routes
from stoker.frontend.routes import (
    ALL_METHODS,
    ANY,
    Operation,
    Outcome,
    Prediction,
    Reply,
    Route,
)
from stoker.settings import Settings

_PREDICT: Final = Prediction(
    takes_query=True, takes_turns=True, is_fetchable=True, or_workflow=True
)
#: The model is named anywhere but in the path.
_UNNAMED: Final = Prediction(
    takes_query=True,
    takes_turns=True,
    model_input="model_name",
    names_in_headers=True,
    is_fetchable=True,
    or_workflow=True,
)
#: Of several versions, the one a client must hear of.
_WORST: Final = ("FAILED", "PENDING", "Unhealthy", "Healthy")


def inference_routes(settings: Settings, has_tripped: Callable[[], bool]) -> tuple[Route, ...]:
    """`has_tripped`: too many predictions have failed (2.1)."""
    model = "/predictions/{model_name}"
    version = f"{model}/{{model_version}}"
    invoke = "/models/{model_name}/invoke"
    chat = "/v1/chat/completions"
    is_there = acknowledge_operation()
    say = "Predict with the model that is named, or the only one there is."
    return (
        *DESCRIPTIONS,
        Route(
            ALL_METHODS,
            "/ping",
            _health(settings, has_tripped),
            "ping",
            "How are they?",
            is_probe=True,
        ),
        *health_routes(),
        Route(ANY, model, _PREDICT, "predictions", "Predict; versions take turns."),
        Route(ANY, version, _PREDICT, "version_predictions", "Predict with one version."),
        Route(ANY, f"{version}/{{rest:path}}", _PREDICT),
        Route(ANY, invoke, _PREDICT, "invoke", "Predict, as SageMaker's multi-model mode asks."),
        Route(ANY, "/invocations", _UNNAMED, "invocations", say),
        Route(ANY, chat, _UNNAMED, "chat", "Give a chat to the model that is named."),
        *(Route(("OPTIONS",), path, is_there) for path in (model, version, invoke)),
    )


def _health(settings: Settings, has_tripped: Callable[[], bool]) -> Operation:
    outcomes = (
        Outcome(200, "No model has failed.", PING),
        Outcome(207, "Some models are still to come (`allow_multi_status`).", PING),
        Outcome(500, "Some model has failed.", PING),
        Outcome(503, "Too many predictions have failed.", PING),
    )
    return Operation(
        "health",
        lambda values, path: {"all_versions": True},
        _health_writer(207 if settings.allow_multi_status else 200, has_tripped),
        QUICK_S,
        outcomes,
    )


def _health_writer(
    pending_status: int, has_tripped: Callable[[], bool]
) -> Callable[[dict[str, Any], dict[str, Any]], Reply]:
    def write(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
        words: dict[str, str] = {}
        for state in outcome["versions"]:
            word, known = status_word(state), words.get(state["model"])
            if known is None or _WORST.index(word) < _WORST.index(known):
                words[state["model"]] = word
        status = 200
        if has_tripped():
            status = 503
        elif "FAILED" in words.values():
            status = 500
        elif "PENDING" in words.values():
            status = pending_status
        return Reply(status, {model: {"status": word} for model, word in words.items()})

    return write
