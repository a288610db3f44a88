"""Places for the workers of a version, with numbers that clients see (9000, 9001, ...)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from stoker.supervisor.restarts import RestartRecord
from stoker.supervisor.versions import Failure
from stoker.supervisor.workers import Worker, WorkerState


@dataclass(slots=True)
class Slot:
    """A place for one worker; when that dies it waits out its back-off and gets another.

    Attributes:
        restart_at: When the next process is due; None while there is one, or
            when the slot is given up.
        device: The device of its group; None where placement chooses.
        replaces: The slot that this one takes over from once it has loaded.
        is_replaced: It retires because a successor has taken over.
        is_renewing: Its worker leaves for another one in this very slot.
    """

    number: int
    created_at: float
    record: RestartRecord = field(default_factory=RestartRecord)
    worker: Worker | None = None
    restart_at: float | None = None
    restarts: int = 0
    is_retiring: bool = False
    is_given_up: bool = False
    is_replaced: bool = False
    is_renewing: bool = False
    replaces: Slot | None = None
    load_failure: Failure | None = None
    device: int | None = None

    @property
    def is_ready(self) -> bool:
        worker = self.worker
        return worker is not None and worker.state in (WorkerState.READY, WorkerState.BUSY)

    @property
    def has_loaded(self) -> bool:
        """It takes requests, or has."""
        return self.worker is not None and self.worker.loaded_at is not None


class Slots(list[Slot]):
    """Those of one version, as they came; a successor's follows the one that it replaces."""

    def workers(self) -> Iterator[Worker]:
        for slot in self:
            if slot.worker is not None:
                yield slot.worker

    @property
    def staying(self) -> list[Slot]:
        """Without a successor that has not taken over yet."""
        return [slot for slot in self if not slot.is_retiring and slot.replaces is None]

    @property
    def ready_count(self) -> int:
        return sum(slot.is_ready and not slot.is_retiring for slot in self)

    @property
    def running_count(self) -> int:
        """Workers that serve or will: those that load count, those that must go do not."""
        return sum(slot.worker is not None and not slot.is_given_up for slot in self.staying)

    def of(self, worker: Worker) -> Slot:
        """Raises LookupError: it has none."""
        for slot in self:
            if slot.worker is worker:
                return slot
        raise LookupError(f"worker {worker.worker_id} has no slot")

    def successor_of(self, slot: Slot) -> Slot | None:
        return next((each for each in self if each.replaces is slot), None)

    def place_of(self, slot: Slot) -> int:
        """Among those that stay, from 0; a successor's is that of the one it replaces."""
        meant = slot.replaces or slot
        return next((i for i, each in enumerate(self.staying) if each is meant), len(self))


def youngest_first(slots: list[Slot]) -> list[Slot]:
    """The order to let them go in when somebody has said how many there are to be."""
    return slots[::-1]


def least_needed(slots: list[Slot]) -> list[Slot]:
    """The order to let them go in for want of load: no worker, idle for longest, at work.

    Of idle ones first those on the device that has the most.
    """
    on_device = Counter(slot.worker.device for slot in slots if slot.worker is not None)

    def need(slot: Slot) -> tuple[int, int, float]:
        worker = slot.worker
        if worker is None:
            return 0, 0, -slot.number
        at_work = 1 if worker.is_idle else 2 if worker.in_hand else 0
        return at_work, -on_device[worker.device], worker.quiet_since

    return sorted(slots, key=need)
