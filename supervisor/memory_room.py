"""How many more workers the host's memory has room for.

What is free now is not free for all: workers that are starting will take
theirs.  What a worker takes is what the largest of its version took, or what
was said of it (`required_memory_mb`).  Of a version nobody knows anything of,
one worker is started and looked at before the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol


class Tenant(NamedTuple):
    """What a version's workers need.

    Attributes:
        worker_bytes: Of one; 0 when that is not known.
        starting: Workers that are on their way and hold nothing much yet.
        reserved_bytes: Must stay free besides.
    """

    worker_bytes: int
    starting: int = 0
    reserved_bytes: int = 0


class HasTenant(Protocol):
    """A version whose number of workers is not fixed."""

    @property
    def tenant(self) -> Tenant: ...


class MemoryRoom:
    """What was free when it was looked at last, and who shares it."""

    __slots__ = ("_sharers", "available_bytes")

    def __init__(self) -> None:
        #: None: nobody has looked, and nothing is refused.
        self.available_bytes: int | None = None
        self._sharers: dict[HasTenant, None] = {}

    @property
    def is_shared(self) -> bool:
        """Whether it matters how much is left."""
        return bool(self._sharers)

    def add(self, who: HasTenant) -> None:
        self._sharers[who] = None

    def discard(self, who: HasTenant) -> None:
        self._sharers.pop(who, None)

    def room_for(self, who: HasTenant) -> Callable[[int], int]:
        """How many of so many more workers of this version there is room for, when it asks."""

        def room(asked: int) -> int:
            return self.workers(asked, who.tenant, [each.tenant for each in self._sharers])

        return room

    def workers(self, asked: int, who: Tenant, everybody: Iterable[Tenant]) -> int:
        """How many of `asked` more workers there is room for; `everybody` includes who asks."""
        if self.available_bytes is None:
            return asked
        promised = sum(tenant.worker_bytes * tenant.starting for tenant in everybody)
        free = self.available_bytes - who.reserved_bytes - promised
        if free <= 0:
            return 0
        if not who.worker_bytes:
            return min(asked, 0 if who.starting else 1)
        return min(asked, free // who.worker_bytes)
