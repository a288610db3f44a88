"""A flag that a process and all it forked later see alike."""

from __future__ import annotations

import mmap


class SharedFlag:
    """Raised by whoever has it, once, and for good."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    @property
    def is_set(self) -> bool:
        return self._page[0] != 0

    def set(self) -> None:
        self._page[0] = 1
