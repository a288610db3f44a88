"""The management listener's rows: contracts/mms.md 6.

What the settings switch off has no row, so it is neither served (405 where the
path has other methods, else 404) nor described.
"""

from __future__ import annotations

from typing import Final

from stoker.frontend.dialects.mms.describe import describe_operation
from stoker.frontend.dialects.mms.register import register_operation
from stoker.frontend.dialects.mms.scale import scale_operation
from stoker.frontend.dialects.mms.unregister import unregister_operation
from stoker.frontend.dialects.shared.listing import list_operation
from stoker.frontend.dialects.shared.standing import description_routes, token_routes
from stoker.frontend.health import health_routes
from stoker.frontend.routes import Operation, Route
from stoker.settings import Settings

_MODEL: Final = "/models/{model_name}"
#: What `enable_model_api` is about.
_MODEL_API: Final = ("register", "unregister")


def management_routes(settings: Settings) -> tuple[Route, ...]:
    register, listing = register_operation(settings), list_operation()
    rows: tuple[tuple[str, str, Operation, str, str], ...] = (
        ("GET", "/models", listing, "listModels", "List registered models."),
        ("POST", "/models", register, "registerModel", "Register a model."),
        ("GET", _MODEL, describe_operation(), "describeModel", "Describe a model."),
        ("PUT", _MODEL, scale_operation(), "setAutoScale", "Scale a model's workers."),
        ("DELETE", _MODEL, unregister_operation(), "unregisterModel", "Unregister a model."),
    )
    return (
        *description_routes(is_described=True, names=("apiDescription", "")),
        *(
            Route((method,), path, verb, name, say)
            for method, path, verb, name, say in rows
            if settings.enable_model_api or verb.verb not in _MODEL_API
        ),
        *health_routes(),
        *token_routes(settings),
    )
