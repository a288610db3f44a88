"""Showing that something goes on when it takes longer than two seconds."""

from __future__ import annotations

import sys
import time
from typing import Final, Self

QUIET_S: Final = 2.0


class Progress:
    """`starting ... 7 s` on standard error; on a terminal rewritten, else a line every 10 s."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = time.monotonic()
        self._is_terminal = sys.stderr.isatty()
        self._next_s = QUIET_S
        self._is_shown = False
        #: How often `tick` is worth calling.
        self.interval_s = 0.5 if self._is_terminal else 1.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown and self._is_terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def tick(self) -> None:
        past_s = time.monotonic() - self._began
        if past_s < self._next_s:
            return
        self._is_shown = True
        if self._is_terminal:
            print(f"\r{self._what} ... {past_s:.0f} s", end="", file=sys.stderr, flush=True)
            return
        print(f"{self._what} ... {past_s:.0f} s", file=sys.stderr, flush=True)
        self._next_s = past_s + 10.0
