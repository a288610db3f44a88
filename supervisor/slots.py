"""A place for one worker of a version, with a number that clients see (9000, 9001, ...)."""

from __future__ import annotations

from dataclasses import dataclass, field

from stoker.supervisor.restarts import RestartRecord
from stoker.supervisor.versions import Failure
from stoker.supervisor.workers import Worker, WorkerState


@dataclass(slots=True)
class Slot:
    """When its process dies the slot waits out its back-off and gets another.

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
