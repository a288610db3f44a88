"""Key-value logging set-up for journald and for people."""

from __future__ import annotations

from typing import Any

import structlog


def get_logger(room: str) -> Any:
    """A structlog logger; `room` is the noun that speaks, like "dispatch" or "http"."""
    return structlog.get_logger(room=room)
