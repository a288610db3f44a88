"""A body in pieces, however small they are.

A piece costs some fifty bytes beside what it holds, so many are joined now
and then: memory stays near what was received.
"""

from __future__ import annotations

from typing import Final

_MANY: Final = 1024


class Pieces:
    """What has come of a body.

    Attributes:
        count: Pieces so far; not exact, but never too high.
    """

    __slots__ = ("_joined", "_loose", "count")

    def __init__(self, first: bytes) -> None:
        self._joined = bytearray()
        self._loose = [first]
        self.count = 0

    def add(self, piece: bytes) -> None:
        self._loose.append(piece)
        if len(self._loose) >= _MANY:
            self._joined += b"".join(self._loose)
            self._loose.clear()
            self.count += _MANY

    def join(self) -> bytes:
        """All of it; nothing can be added afterwards."""
        if not self.count:
            return b"".join(self._loose)
        self._joined += b"".join(self._loose)
        joined, self._joined = self._joined, bytearray()
        return bytes(joined)
