"""Handlers that do nothing, so that what is measured is the server."""

from __future__ import annotations

from typing import Any


def echo(data: list[dict[str, Any]] | None, context: Any) -> list[bytes]:
    """Every request's body, unchanged."""
    return [] if data is None else [bytes(row["body"]) for row in data]


def size(data: list[dict[str, Any]] | None, context: Any) -> list[str]:
    """How long every body was: for bodies that should travel one way only."""
    return [] if data is None else [str(len(row["body"])) for row in data]
