"""The loop outlives any event: it is logged and the next one is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stoker.logs import get_logger

log = get_logger("supervisor")


def guarded(handle: Callable[..., None]) -> Callable[..., None]:
    """The same, but what it raises ends in the log."""

    def call(*args: Any) -> None:
        try:
            handle(*args)
        except Exception:
            log.exception("event failed")

    return call
