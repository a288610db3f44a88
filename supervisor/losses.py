"""What is learnt from the workers of one version that died, and who replaces them.

`restarts.py` says when; a place whose workers do nothing but die is given up.
"""

from __future__ import annotations

from stoker.supervisor.deaths import Death, Exit, cause_of, end_of_load, end_of_tries
from stoker.supervisor.loads import Loads
from stoker.supervisor.recovery import Lost
from stoker.supervisor.restarts import after_death
from stoker.supervisor.slots import Slot, Slots
from stoker.supervisor.supply import Supply
from stoker.supervisor.versions import VersionSpec
from stoker.supervisor.worker_notes import WorkerNotes
from stoker.supervisor.workers import Worker


class Losses:
    """In the crew of one version.

    Attributes:
        count: Ends that nobody wanted.
        latest: The latest of them.
    """

    def __init__(
        self, spec: VersionSpec, slots: Slots, supply: Supply, loads: Loads, notes: WorkerNotes
    ) -> None:
        self.count = 0
        self.latest: Death | None = None
        self._spec = spec
        self._slots = slots
        self._supply = supply
        self._loads = loads
        self._notes = notes

    def note(self, worker: Worker, how: Exit, lost: Lost, now: float) -> None:
        """It has died, with jobs in hand of which `lost` tells."""
        cause = cause_of(worker.why_killed, how)
        self.count += 1
        self.latest = Death(now, worker.slot, worker.pid, how.words, cause, lost.again, lost.failed)
        self._notes.add(
            "warning",
            "worker lost",
            worker,
            exit=how.words,
            likely=cause,
            jobs_again=lost.again,
            jobs_failed=lost.failed,
            deaths=self.count,
        )

    def replace(
        self, slot: Slot, worker: Worker, how: Exit, now: float, *, is_explained: bool
    ) -> None:
        """Fill its place again, at once or later, or give it up.

        Args:
            is_explained: As in `after_death`.
        """
        slot.restarts += 1
        slot.is_renewing = False
        successor = self._slots.successor_of(slot)
        if successor is not None:
            # It is on its way already.
            successor.replaces, successor.restarts = None, slot.restarts
            successor.record = slot.record
            self._slots.remove(slot)
            return
        if worker.loaded_at is None and slot.load_failure is None:
            self._loads.failed(end_of_load(worker.why_killed, how))
        if slot.load_failure is not None and not self._loads.has_ever_loaded:
            slot.is_given_up = True
            return
        restart = after_death(
            slot.record,
            now=now,
            loaded_at=worker.loaded_at,
            max_retry_s=self._spec.max_retry_s,
            is_explained=is_explained,
        )
        slot.record, slot.restart_at = restart.record, restart.at
        if restart.at is None:
            self._give_up(slot, worker, how, now)
        else:
            self._notes.add(
                "info",
                "worker restarts",
                worker,
                in_s=round(restart.at - now, 3),
                restarts=slot.restarts,
            )
            self._supply.start_due(now)

    def _give_up(self, slot: Slot, worker: Worker, how: Exit, now: float) -> None:
        slot.is_given_up = True
        since = slot.record.recovery_since
        tried_for_s = 0.0 if since is None else now - since
        self._notes.add(
            "error",
            "worker given up",
            worker,
            restarts=slot.restarts,
            tried_for_s=round(tried_for_s, 3),
            exit=how.words,
            likely=cause_of(worker.why_killed, how),
        )
        if self._loads.failure is None:
            self._loads.failed(end_of_tries(worker.why_killed, how, tried_for_s))
