"""Numbers of workers and of slots, none of which is given twice.

A predecessor's workers keep theirs: they are orphans until a version takes
them, and where the predecessor's numbers ended ours begin.
"""

from __future__ import annotations

from stoker.supervisor.orphans import Orphan, Orphans
from stoker.supervisor.versions import VersionSpec


class WorkerNumbers:
    """One for all versions.

    Args:
        first_slot: `initial_worker_port`.
    """

    def __init__(self, first_slot: int) -> None:
        self._worker_id = 0
        self._slot = first_slot - 1
        self._orphans = Orphans()

    def inherit(self, orphans: Orphans, worker_id: int, slot: int) -> None:
        """Take over from a predecessor: its living workers, and where its numbers ended."""
        self._orphans = orphans
        self._worker_id = max(self._worker_id, worker_id)
        self._slot = max(self._slot, slot)

    def next_worker_id(self) -> int:
        self._worker_id += 1
        return self._worker_id

    def next_slot(self) -> int:
        self._slot += 1
        return self._slot

    def next_orphan(self, spec: VersionSpec) -> Orphan | None:
        return self._orphans.take(spec)

    def has_dead(self, spec: VersionSpec) -> bool:
        """Did a worker of it die without a word about what it had begun?"""
        return self._orphans.has_dead(spec)
