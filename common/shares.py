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
        taken_bytes: By all together.
    """

    __slots__ = ("_unasked", "limit_bytes", "taken_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.taken_bytes = 0
        #: Below this nobody can have more than a share of what is free.
        self._unasked = limit_bytes - -(-limit_bytes // (GREED + 1))

    def take(self, size: int, own: int) -> bool:
        """False when there is no room, for anybody or for this one; then nothing was taken."""
        taken = self.taken_bytes + size
        if taken > self._unasked and not may_take(size, own, self.taken_bytes, self.limit_bytes):
            return False
        self.taken_bytes = taken
        return True

    def has_room(self, size: int, own: int) -> bool:
        """Would `take` succeed now?"""
        return self.taken_bytes + size <= self._unasked or may_take(
            size, own, self.taken_bytes, self.limit_bytes
        )

    def give_back(self, size: int) -> None:
        self.taken_bytes -= size
