"""What listeners have in every dialect: descriptions of themselves, keys, the numbers.

Source: contracts/torchserve.md 2.9, 3.10, 10.1.
"""

from __future__ import annotations

from stoker.frontend.routes import ALL_METHODS, ANY, Description, KeyRenewal, Route, Statistics
from stoker.settings import Settings


def description_routes(
    *, is_described: bool, names: tuple[str, str] = ("apiDescription", "api-description")
) -> tuple[Route, ...]:
    names = names if is_described else ("", "")
    say = "Get the OpenAPI document."
    return (
        Route(("OPTIONS",), "/", Description(), names[0], say),
        Route(ALL_METHODS, "/api-description", Description(), names[1], say, is_deprecated=True),
    )


def token_routes(settings: Settings) -> tuple[Route, ...]:
    """Where keys are renewed, if callers are asked for any."""
    if settings.disable_token_authorization:
        return ()
    return (Route(ALL_METHODS, "/token", KeyRenewal()),)


def metrics_routes() -> tuple[Route, ...]:
    return (
        *description_routes(is_described=False),
        Route(ANY, "/metrics", Statistics(), "metrics", "Get metrics of the server."),
        Route(ANY, "/metrics/{rest:path}", Statistics()),
    )
