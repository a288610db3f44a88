"""How much of a common good one of many may take.

Whoever holds some may hold at most `GREED` times what is still free.  Alone,
one gets seven eighths of everything; two greedy ones get seven fifteenths
each; something is always left for one who comes later.  Nobody has to be
known beforehand, and nothing is set aside that nobody wants.
"""

from __future__ import annotations

from typing import Final

GREED: Final = 7


def may_take(size: int, own: int, taken: int, limit: int) -> bool:
    """Whether one who holds `own` of the `taken` may take `size` more."""
    free = limit - taken
    return size <= free and own + size <= GREED * free


class Budget:
    """Bytes that many share; each of them counts what is its own.

    Attributes:
        taken: By all together.
    """

    __slots__ = ("_unasked", "limit", "taken")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        #: Below this nobody can have more than a share of what is free.
        self._unasked = limit - limit // (GREED + 1)

    def take(self, size: int, own: int) -> bool:
        """False when there is no room, for anybody or for this one; then nothing was taken."""
        taken = self.taken + size
        if taken > self._unasked and not may_take(size, own, self.taken, self.limit):
            return False
        self.taken = taken
        return True

    def give_back(self, size: int) -> None:
        self.taken -= size
