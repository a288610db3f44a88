"""How long a batch takes, learned from those that were done: by how many requests are in it.

    seconds = fixed + each * size

On a GPU a batch of eight takes hardly longer than one of one, on a CPU eight
times as long.  Which it is decides whether fuller batches or more workers are
the answer to more requests, so it is measured: a line through what was seen,
in which older batches count for less and less.
"""

from __future__ import annotations

import math
from typing import Final

#: After so long a batch counts for about a third.
FADES_S: Final = 120.0
#: Below this spread of sizes (relative, squared) nothing is known of the slope.
LEAST_SPREAD: Final = 0.01


class BatchTimes:
    """Learned from what a look adds: so many batches of so many jobs took so long together."""

    __slots__ = ("_batches", "_noted_at", "_seconds", "_size", "_size_seconds", "_size_squared")

    def __init__(self) -> None:
        self._batches = self._size = self._size_squared = 0.0
        self._seconds = self._size_seconds = 0.0
        self._noted_at = 0.0

    def note(self, batches: int, jobs: int, took_s: float, now: float) -> None:
        """So many batches have ended since the last look, which took workers so much time."""
        if batches <= 0:
            return
        fades = math.exp(-max(0.0, now - self._noted_at) / FADES_S)
        self._noted_at = now
        size, seconds = jobs / batches, took_s / batches
        self._batches = self._batches * fades + batches
        self._size = self._size * fades + batches * size
        self._size_squared = self._size_squared * fades + batches * size * size
        self._seconds = self._seconds * fades + batches * seconds
        self._size_seconds = self._size_seconds * fades + batches * size * seconds

    def expect_s(self, size: int) -> float | None:
        """For a batch of that size; None before the first one was done."""
        if not self._batches:
            return None
        mean_size, mean_s = self._size / self._batches, self._seconds / self._batches
        if size <= mean_size or not mean_size:
            return mean_s
        # Unless it was seen to be less, twice the size takes twice the time.
        each_s = mean_s / mean_size
        spread = self._size_squared / self._batches - mean_size * mean_size
        if spread > LEAST_SPREAD * mean_size * mean_size:
            together = self._size_seconds / self._batches - mean_size * mean_s
            each_s = min(each_s, max(0.0, together / spread))
        return mean_s + each_s * (size - mean_size)
