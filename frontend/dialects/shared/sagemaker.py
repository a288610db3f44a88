"""What SageMaker's containers must answer: contracts/torchserve.md 2.1, 2.3, 2.10.

The prediction routes are always there.  Its own `/ping` and
`/execution-parameters` are plugins of the peer, so they come with the setting
`sagemaker`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from stoker.frontend.dialects.shared.replies import QUICK_S
from stoker.frontend.dialects.shared.shapes import exactly
from stoker.frontend.routes import ANY, Fixed, Operation, Outcome, Prediction, Reply, Route
from stoker.settings import MIB, Settings

_MULTI_MODEL: Final = Prediction(takes_query=True)
_SINGLE_MODEL: Final = Prediction(takes_query=True, model_input="model_name")

_HEALTHY: Final = Reply(200, b'{\n\t"Status": "Healthy"\n}\n')
_UNHEALTHY: Final = Reply(503, b"Models are not loaded", "text/plain")
_NO_HANDLER: Final = Reply(503, b"System is not healthy", "text/plain")


def sagemaker_routes(settings: Settings) -> tuple[Route, ...]:
    invoke = "/models/{model_name}/invoke"
    say = "Predict with the model that is named, or the only one there is."
    routes = (
        Route(ANY, "/invocations", _SINGLE_MODEL, "invocations", say),
        Route(
            ANY, invoke, _MULTI_MODEL, "invoke", "Predict, as SageMaker's multi-model mode asks."
        ),
    )
    return (*routes, *execution_parameters(settings))


def execution_parameters(settings: Settings) -> tuple[Route, ...]:
    if settings.sagemaker == "off":
        return ()
    parameters = Fixed(
        Reply(
            200,
            {
                "MaxConcurrentTransforms": settings.default_workers_per_model
                or settings.startup_workers_per_model
                or 1,
                "BatchStrategy": "MULTI_RECORD",
                "MaxPayloadInMB": settings.max_request_size // MIB,
            },
        )
    )
    say = "How SageMaker's batch transform may call."
    return (Route(("GET",), "/execution-parameters", parameters, "execution_parameters", say),)


def sagemaker_health(settings: Settings) -> Operation | Fixed:
    """With one model: as soon as any worker has loaded.

    With many there is nothing to load before the first is added, but the
    handler for them all must be where the settings say it is.
    """
    if settings.sagemaker == "multi":
        return Fixed(_HEALTHY if _has_handler(settings.default_service_handler) else _NO_HANDLER)
    outcomes = (
        Outcome(200, "Some worker has loaded.", exactly({"Status": {"type": "string"}})),
        Outcome(503, "None has.", None, "text/plain"),
    )
    return Operation("health", lambda values, path: {}, _write_health, QUICK_S, outcomes)


def _has_handler(handler: str) -> bool:
    """A module's name without a folder is found later, on the path of workers."""
    module = handler.partition(":")[0]
    return "/" not in module or Path(f"{module.removesuffix('.py')}.py").is_file()


def _write_health(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    return _HEALTHY if outcome["has_ready_worker"] else _UNHEALTHY
