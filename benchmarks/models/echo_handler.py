"""Handlers that do nothing, so that what is measured is the server.

In the form that stoker, TorchServe and MMS share.
"""

from __future__ import annotations

import time
from typing import Any

SLOW_S = 0.005


def echo(data: list[dict[str, Any]] | None, context: Any) -> list[bytes]:
    """Every request's body, unchanged."""
    return [] if data is None else [bytes(row["body"]) for row in data]


def size(data: list[dict[str, Any]] | None, context: Any) -> list[str]:
    """How long every body was: for bodies that should travel one way only."""
    return [] if data is None else [str(len(row["body"])) for row in data]


def slow(data: list[dict[str, Any]] | None, context: Any) -> list[bytes]:
    """An echo after 5 ms: for more requests than can be answered."""
    if data is None:
        return []
    time.sleep(SLOW_S)
    return [bytes(row["body"]) for row in data]
