"""Waiting for something to come true."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

DEADLINE_S = 20.0


def wait_until(
    fact: Callable[[], Any], what: str | Callable[[], str], within_s: float = DEADLINE_S
) -> Any:
    """Look for a fact until it is one, and return it; never a blind sleep."""
    end = time.monotonic() + within_s
    while not (found := fact()):
        assert time.monotonic() < end, (
            f"did not happen in time: {what if isinstance(what, str) else what()}"
        )
        time.sleep(0.005)
    return found
