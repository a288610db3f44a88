"""The management listener's rows: contracts/torchserve.md section 3.

What the settings switch off has no row, so it is neither served (405 where the
path has other methods, else 404) nor described.
"""

from __future__ import annotations

from typing import Final

from stoker.frontend.dialects.shared.listing import list_operation
from stoker.frontend.dialects.shared.standing import description_routes, token_routes
from stoker.frontend.dialects.torchserve.describe import describe_operation
from stoker.frontend.dialects.torchserve.kserve import readiness_route
from stoker.frontend.dialects.torchserve.register import register_operation
from stoker.frontend.dialects.torchserve.scale import scale_operation
from stoker.frontend.dialects.torchserve.versions import (
    set_default_operation,
    unregister_operation,
)
from stoker.frontend.dialects.torchserve.workflows import workflow_management_routes
from stoker.frontend.health import health_routes
from stoker.frontend.routes import Description, Operation, Route
from stoker.settings import Settings

_MODEL: Final = "/models/{model_name}"
_VERSION: Final = "/models/{model_name}/{model_version}"
#: What `enable_model_api` is about (3.11).
_MODEL_API: Final = ("register", "unregister")


def management_routes(settings: Settings) -> tuple[Route, ...]:
    register, listing = register_operation(settings), list_operation()
    describe, scale = describe_operation(), scale_operation()
    unregister, set_default = unregister_operation(), set_default_operation()
    of_model = Description(of_model=True, title="RESTful Management API for: {model_name}")
    rows: tuple[tuple[str, str, Operation, str, str], ...] = (
        ("GET", "/models", listing, "listModels", "List registered models."),
        ("POST", "/models", register, "registerModel", "Register a model."),
        ("GET", _MODEL, describe, "describeModel", "Describe the default version."),
        ("PUT", _MODEL, scale, "setAutoScale", "Scale the default version's workers."),
        ("DELETE", _MODEL, unregister, "unregisterModel", "Unregister the default version."),
        ("GET", _VERSION, describe, "version_describeModel", "Describe a version, or `all`."),
        ("PUT", _VERSION, scale, "version_setAutoScale", "Scale a version's workers."),
        ("DELETE", _VERSION, unregister, "version_unregisterModel", "Unregister a version."),
        (
            "PUT",
            f"{_VERSION}/set-default",
            set_default,
            "setDefault",
            "Make a version the default.",
        ),
    )
    return (
        *description_routes(is_described=True),
        *(
            Route((method,), path, verb, name, say)
            for method, path, verb, name, say in rows
            if settings.enable_model_api or verb.verb not in _MODEL_API
        ),
        Route(("OPTIONS",), _MODEL, of_model),
        Route(("OPTIONS",), _VERSION, of_model),
        *workflow_management_routes(settings),
        readiness_route(),
        *health_routes(),
        *token_routes(settings),
    )
