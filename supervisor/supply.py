"""Where the workers of one version come from: started on a device, or a predecessor's.

A worker that its dead supervisor has left is as good as a new one, and has
loaded already.
"""

from __future__ import annotations

from typing import Protocol

from stoker.supervisor.actions import Action, Adopt, Spawn
from stoker.supervisor.orphans import Orphan
from stoker.supervisor.pools import Pool
from stoker.supervisor.slots import Slot, Slots
from stoker.supervisor.versions import VersionSpec
from stoker.supervisor.workers import Worker, WorkerState


class Devices(Protocol):
    """Which device a new worker gets; see placement."""

    def place(self, worker_id: int, spec: VersionSpec) -> int | None: ...

    def place_on(self, worker_id: int, spec: VersionSpec, device: int) -> int | None:
        """On this one: its group's."""
        ...

    def place_on_cpu(self, worker_id: int, spec: VersionSpec) -> None: ...

    def has_gpu(self, spec: VersionSpec, index: int) -> bool:
        """Whether the worker in this place of its crew, counted from 0, is to use a GPU."""
        ...

    def keep(self, worker_id: int, spec: VersionSpec, uuids: tuple[str, ...]) -> int | None:
        """Where a worker is already.  Raises LookupError if such a place is not."""
        ...

    def release(self, worker_id: int) -> None: ...


class Numbers(Protocol):
    """Numbers that are never used twice, and workers that have theirs already."""

    def next_worker_id(self) -> int: ...

    def next_slot(self) -> int: ...

    def next_orphan(self, spec: VersionSpec) -> Orphan | None: ...


class Supply:
    """Fills slots with workers, and finds new slots."""

    def __init__(
        self,
        spec: VersionSpec,
        slots: Slots,
        pool: Pool,
        actions: list[Action],
        numbers: Numbers,
        devices: Devices,
    ) -> None:
        self._spec = spec
        self._slots = slots
        self._pool = pool
        self._actions = actions
        self._numbers = numbers
        self._devices = devices

    def new_slot(self, now: float, device: int | None, replaces: Slot | None = None) -> Slot:
        """One with a number that nobody had; the caller says when it gets a worker."""
        return Slot(self._numbers.next_slot(), now, device=device, replaces=replaces)

    def start_due(self, now: float) -> None:
        """Start a worker wherever one is due."""
        for slot in self._slots:
            if slot.restart_at is not None and slot.restart_at <= now:
                slot.restart_at = None
                self.spawn(slot, now)

    def spawn(self, slot: Slot, now: float) -> None:
        worker_id = self._numbers.next_worker_id()
        spec, devices = self._spec, self._devices
        device = None
        if slot.device is not None:
            device = devices.place_on(worker_id, spec, slot.device)
        elif self.is_for_gpu(self._slots.place_of(slot)):
            device = devices.place(worker_id, spec)
        else:
            devices.place_on_cpu(worker_id, spec)
        slot.worker = Worker(worker_id, slot.number, device, now)
        slot.load_failure = None
        self._actions.append(Spawn(worker_id, slot.number, spec, device))

    def is_for_gpu(self, place: int) -> bool:
        """Whether the worker in this place is to have a device like any other, by `number_gpu`."""
        return self._spec.number_gpu is None or self._devices.has_gpu(self._spec, place)

    def release(self, worker: Worker) -> None:
        """Its process is gone, and does not need its device any more."""
        self._devices.release(worker.worker_id)

    def inherit(self, now: float, *, is_grouped: bool) -> Slot | None:
        """A slot with a predecessor's worker in it; None: there is none left.

        Args:
            is_grouped: Its slot belongs to the group of the device that it is on.
        """
        while (orphan := self._numbers.next_orphan(self._spec)) is not None:
            try:
                device = self._devices.keep(orphan.worker_id, self._spec, orphan.devices)
            except LookupError:
                self._pool.doubt()
                continue
            worker = Worker(orphan.worker_id, orphan.slot, device, now)
            worker.state, worker.is_awaited = WorkerState.AWAITED, True
            worker.pid = orphan.pid
            worker.loaded_at = now if orphan.has_loaded else None
            worker.alone_since = now if orphan.alone_since is None else orphan.alone_since
            if orphan.has_loaded:
                self._pool.expect(worker)
            self._actions.append(Adopt(worker.worker_id, orphan.slot, orphan.pid, self._spec))
            return Slot(orphan.slot, now, worker=worker, device=device if is_grouped else None)
        return None
