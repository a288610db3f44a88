"""The management rows: models and workflows have all but two in common.

Source: contracts/djl-serving.md 4.
"""

from __future__ import annotations

from typing import Any, Final

from stoker.frontend.dialects.djl.adapters import adapter_routes
from stoker.frontend.dialects.djl.describe import describe_operation
from stoker.frontend.dialects.djl.listing import list_models_operation, list_workflows_operation
from stoker.frontend.dialects.djl.register import register_operation
from stoker.frontend.dialects.djl.scale import scale_operation
from stoker.frontend.dialects.shared.replies import PATIENT_S, status
from stoker.frontend.dialects.shared.shapes import STATUS
from stoker.frontend.dialects.shared.standing import token_routes
from stoker.frontend.health import health_routes
from stoker.frontend.routes import (
    ALL_METHODS,
    Description,
    Fixed,
    Operation,
    Outcome,
    Reply,
    Route,
    Statistics,
    Values,
)
from stoker.settings import Settings

#: What `enable_model_api` is about.
_MODEL_API: Final = ("register", "unregister")
#: The peer's OPTIONS says nothing (1); what is served is described on a path of ours.
DESCRIPTIONS: Final = (
    Route(("OPTIONS",), "/", Fixed(Reply(200, {})), "options", "Ask whether it is there."),
    Route(
        ALL_METHODS,
        "/api-description",
        Description(),
        "api-description",
        "Get the OpenAPI document.",
    ),
)


def management_routes(settings: Settings) -> tuple[Route, ...]:
    rows = (
        *_rows(settings, "Model", list_models_operation()),
        *_rows(settings, "Workflow", list_workflows_operation()),
    )
    say = "Get metrics of the server."
    return (
        *DESCRIPTIONS,
        *(
            row
            for row in rows
            if settings.enable_model_api
            or not (isinstance(row.serves, Operation) and row.serves.verb in _MODEL_API)
        ),
        Route(("GET",), "/server/metrics", Statistics(), "serverMetrics", say),
        *(row for row in adapter_routes() if settings.enable_model_api or row.methods == ("GET",)),
        *health_routes(),
        *token_routes(settings),
    )


def _rows(settings: Settings, kind: str, listing: Operation) -> tuple[Route, ...]:
    """Of one collection."""
    one = kind.lower()
    all_of_them = f"/{one}s"
    item = f"{all_of_them}/{{model_name}}"
    version = f"{item}/{{model_version}}"
    register = register_operation(settings, kind)
    verbs = (
        ("GET", describe_operation(settings), f"describe{kind}", f"Describe a {one}."),
        ("PUT", scale_operation(), f"scale{kind}", f"Scale the workers of a {one}."),
        ("DELETE", unregister_operation(), f"unregister{kind}", f"Unregister a {one}."),
    )
    return (
        Route(("GET",), all_of_them, listing, f"list{kind}s", f"List registered {one}s."),
        Route(("POST",), all_of_them, register, f"register{kind}", f"Register a {one}."),
        *(Route((method,), item, verb, name, say) for method, verb, name, say in verbs),
        *(
            Route((method,), version, verb, f"version_{name}", f"{say[:-1]}, one version of it.")
            for method, verb, name, say in verbs
        ),
    )


def unregister_operation() -> Operation:
    """All versions, unless the path names one (4.5)."""
    outcome = Outcome(200, "It is gone.", STATUS)
    return Operation("unregister", _read_unregister, _write_unregister, PATIENT_S, (outcome,))


def _read_unregister(values: Values, path: Any) -> dict[str, Any]:
    version = path.get("model_version")
    return {
        "model": path["model_name"],
        "version": version,
        "all": version is None,
        "may_be_default": True,
        "or_workflow": True,
    }


def _write_unregister(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    return status(f'Workflow "{arguments["model"]}" unregistered')
