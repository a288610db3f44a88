"""Living workers of a supervisor that is dead, until somebody takes them over.

Each is known by the hash of what it has loaded: a version that has the same
one may have it instead of a new process.

Source: design section 4; issue "Nothing is lost", promise 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from stoker.supervisor.versions import VersionSpec


class Orphan(NamedTuple):
    """What its place is: the numbers it is known by, and its devices' UUIDs.

    Attributes:
        has_loaded: As far as was written down; one that had not was never given a job.
        alone_since: When the first supervisor that missed it came; None: we are the first.
    """

    worker_id: int
    slot: int
    pid: int
    devices: tuple[str, ...] = ()
    has_loaded: bool = True
    alone_since: float | None = None


class Orphans:
    """Whoever takes one has it; nobody else gets it.

    Args:
        name_of: `worker_record.spec_hash`.
        living: With the hash of what each has loaded.
        dead: The hashes of those that died with their supervisor, or since.
    """

    def __init__(
        self,
        name_of: Callable[[VersionSpec], str] = lambda _: "",
        living: Iterable[tuple[str, Orphan]] = (),
        dead: Iterable[str] = (),
    ) -> None:
        self._name_of = name_of
        self._living: dict[str, list[Orphan]] = {}
        for name, orphan in living:
            self._living.setdefault(name, []).append(orphan)
        for orphans in self._living.values():
            orphans.sort(key=lambda orphan: orphan.slot, reverse=True)
        self._dead = frozenset(dead)

    def take(self, spec: VersionSpec) -> Orphan | None:
        """The one with the lowest slot that has loaded just this; None: there is none left."""
        if not self._living:
            return None
        orphans = self._living.get(self._name_of(spec))
        return orphans.pop() if orphans else None

    def has_dead(self, spec: VersionSpec) -> bool:
        """Did a worker of it die without a word about what it had begun?"""
        return bool(self._dead) and self._name_of(spec) in self._dead

    def forget(self) -> None:
        """Nobody else is going to take one."""
        self._living.clear()
