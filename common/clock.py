"""Monotonic time, as something one can hand over and replace.

`CLOCK_MONOTONIC` is the same in every process of one host, so an absolute
instant read in a frontend means the same in the supervisor and in a worker.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds on a clock that never goes back."""
        ...


class MonotonicClock:
    """The host's clock."""

    __slots__ = ()

    def now(self) -> float:
        return time.monotonic()


class FakeClock:
    """Time as a number a test moves."""

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("a monotonic clock does not go back")
        self._now += seconds
