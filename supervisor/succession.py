"""How one worker takes over from another that is well (`recycling.py` says when).

The successor has a slot of its own, next to the old one's, until it has
loaded.  One at a time, as that takes room.
"""

from __future__ import annotations

from stoker.supervisor.deaths import Exit
from stoker.supervisor.ladder import Ladder
from stoker.supervisor.pools import Pool
from stoker.supervisor.recycling import AGAIN_S
from stoker.supervisor.slots import Slot, Slots
from stoker.supervisor.supply import Supply
from stoker.supervisor.versions import VersionSpec
from stoker.supervisor.worker_notes import WorkerNotes
from stoker.supervisor.workers import Worker, WorkerEvent


class Succession:
    """In the crew of one version."""

    def __init__(
        self,
        spec: VersionSpec,
        slots: Slots,
        pool: Pool,
        supply: Supply,
        ladder: Ladder,
        notes: WorkerNotes,
    ) -> None:
        self.recycled_count = 0
        self._spec = spec
        self._slots = slots
        self._pool = pool
        self._supply = supply
        self._ladder = ladder
        self._notes = notes
        self._not_before = 0.0

    def allow(self, now: float) -> None:
        """Somebody looks after the version: what could not be had may be tried again."""
        self._not_before = now

    def sweep(self, now: float) -> None:
        """Begin to replace the worker that is due and oldest.

        The oldest, or one whose successors are due again at every look would
        keep the others from their turn.
        """
        if now < self._not_before:
            return
        due: tuple[Slot, Worker, str] | None = None
        oldest_at = float("inf")
        for slot in self._slots:
            if slot.replaces is not None or slot.is_renewing:
                return
            worker = slot.worker
            if worker is not None and self._pool.is_winding_down(worker):
                return  # there would be more and more of them
            if slot.is_ready and not slot.is_retiring:
                assert worker is not None
                why = self._spec.limits.passed_by(worker, now)
                loaded_at = worker.loaded_at or 0.0
                if why is not None and loaded_at < oldest_at:
                    due, oldest_at = (slot, worker, why), loaded_at
        if due is not None:
            self._begin(*due, now)

    def _begin(self, old: Slot, worker: Worker, why: str, now: float) -> None:
        self.recycled_count += 1
        self._notes.add("info", "worker recycles", worker, why=why)
        successor = self._supply.new_slot(now, old.device, replaces=old)
        self._slots.insert(self._slots.index(old) + 1, successor)
        self._supply.spawn(successor, now)

    def lose_successor(self, slot: Slot, worker: Worker, how: Exit, now: float) -> None:
        """It never came to take over; the old worker serves on."""
        old, failure = slot.replaces, slot.load_failure
        self._slots.remove(slot)
        assert old is not None
        self._not_before = now + AGAIN_S
        is_for_room = how.is_oom_like or (failure is not None and failure.is_out_of_memory)
        self._notes.add(
            "warning",
            "successor did not load",
            worker,
            last_line=how.last_line or how.words if failure is None else failure.last_line,
            old_worker=old.number,
            leaves_first=is_for_room,
        )
        if is_for_room and old.worker is not None and old.worker.can(WorkerEvent.RETIRE):
            old.is_renewing = True
            self._ladder.drain(old.worker, None, now)
