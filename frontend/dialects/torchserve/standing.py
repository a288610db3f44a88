"""What every listener has: descriptions of itself, and the numbers (2.9, 10.1)."""

from __future__ import annotations

from stoker.frontend.routes import ALL_METHODS, Description, Route, Statistics


def description_routes(*, is_described: bool) -> tuple[Route, ...]:
    names = ("apiDescription", "api-description") if is_described else ("", "")
    say = "Get the OpenAPI document."
    return (
        Route(("OPTIONS",), "/", Description(), names[0], say),
        Route(ALL_METHODS, "/api-description", Description(), names[1], say, is_deprecated=True),
    )


def metrics_routes() -> tuple[Route, ...]:
    return (
        *description_routes(is_described=False),
        Route(("GET",), "/metrics", Statistics(), "metrics", "Get metrics of the server."),
    )
