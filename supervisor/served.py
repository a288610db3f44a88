"""One registered version: its jobs, its workers, and the calls that wait for it.

Here is what follows from the three together: a queue that nobody will work on
is flushed, a call that has come true is answered, a version that leaves is
let go with its last worker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from stoker.errors import StokerError
from stoker.supervisor.actions import Action, Note, Release
from stoker.supervisor.autoscaler import Autoscaler, Change, Room
from stoker.supervisor.batching import BatchPolicy
from stoker.supervisor.crews import Crew
from stoker.supervisor.deaths import RETIRED
from stoker.supervisor.device_groups import Group
from stoker.supervisor.memory_room import Tenant
from stoker.supervisor.pools import Pool
from stoker.supervisor.scaling import wanted_workers
from stoker.supervisor.versions import Failure, VersionEvent, VersionSpec, VersionState, move
from stoker.supervisor.waiting import Waiter, Waiters

RUNNING: Final = frozenset({VersionState.SCALING, VersionState.STEADY})


class Served:
    """Everything about one registered version."""

    __slots__ = (
        "_actions",
        "_serves_on",
        "autoscaler",
        "crew",
        "pool",
        "spec",
        "state",
        "waiters",
    )

    def __init__(self, spec: VersionSpec, pool: Pool, crew: Crew, actions: list[Action]) -> None:
        self.spec = spec
        self.pool = pool
        self.crew = crew
        self.state = VersionState.REGISTERED
        self.waiters = Waiters(spec, actions)
        #: None while the number of workers is fixed.
        self.autoscaler: Autoscaler | None = None
        #: It leaves, but only when its queue is empty.
        self._serves_on = False
        self._actions = actions

    @property
    def is_leaving(self) -> bool:
        return self.state is VersionState.DRAINING

    def scale(
        self,
        min_workers: int,
        max_workers: int,
        drain_s: float | None,
        now: float,
        groups: tuple[Group, ...] = (),
    ) -> None:
        crew = self.crew
        crew.bound(min_workers, max_workers, groups)
        self.pool.resize(min_workers, max_workers)
        self._move(VersionEvent.SCALE)
        self.pool.recovery.release(None)
        wanted = wanted_workers(len(crew.slots.staying), min_workers, max_workers)
        self.note("info", "model scales", workers=wanted)
        crew.set_size(wanted, drain_s, now)
        self.autoscaler = None
        if max_workers > min_workers:
            crew.inherit_more(max_workers, now)
            self.autoscaler = Autoscaler(self.pool, crew, now)

    def autoscale(self, room: Room, now: float) -> None:
        """Look how many workers are needed, and have them."""
        if self.autoscaler is None or self.state not in RUNNING:
            return
        change = self.autoscaler.look(room, now)
        if change is not None:
            self._change(change, now)

    def wake(self, room: Room, now: float) -> bool:
        """A request came, and nobody is there: may it wait for a worker?

        Where there is no room for one, it waits for that as well.
        """
        if self.autoscaler is None or self.state not in RUNNING or not self.crew.is_asleep:
            return False
        if room(1):
            self._change(self.autoscaler.wake(now), now)
        return True

    @property
    def wanted_workers(self) -> int:
        """As many as there should be just now."""
        scaler = self.autoscaler
        return len(self.crew.slots.staying) if scaler is None else scaler.wanted

    @property
    def tenant(self) -> Tenant:
        """What its workers take of the host's memory."""
        crew, spec = self.crew, self.spec
        starting = sum(
            slot.worker is not None and not slot.has_loaded for slot in crew.slots.staying
        )
        worker_bytes = max(crew.worker_bytes, spec.required_memory_bytes)
        return Tenant(worker_bytes, starting, spec.reserved_memory_bytes)

    def _change(self, change: Change, now: float) -> None:
        facts = {"workers": change.workers, "wanted": change.wanted, "why": change.reason}
        self.note("info", "model autoscales", **facts, **change.facts)
        if change.wanted != change.workers:
            self.crew.resize(change.wanted, now)

    def tune(self, batch: BatchPolicy, max_idle_s: float, number_gpu: int | None) -> None:
        """Form batches, let workers idle, and place them, like this from now on."""
        self.spec.batch = self.pool.policy = batch
        self.spec.max_idle_s = max_idle_s
        self.spec.number_gpu = number_gpu
        self.pool.resize(self.crew.min_workers, self.crew.max_workers)

    def fail(self, failure: Failure, min_workers: int, max_workers: int) -> None:
        """It cannot even be tried: its archive is not there."""
        crew = self.crew
        crew.bound(min_workers, max_workers)
        crew.loads.failure = failure
        self._move(VersionEvent.FAIL)
        self.note("error", "model cannot be loaded", reason=failure.message)

    def leave(
        self, error: StokerError, removal: Waiter | None, now: float, *, ends_queue: bool
    ) -> None:
        """Let the workers finish and go; `error` is for who waited for them.

        Args:
            ends_queue: Not what is queued: that will be answered with an error.
        """
        self.waiters.await_removal(removal)
        self._move(VersionEvent.DRAIN)
        self.waiters.resolve(error)
        self.crew.bound(0, 0)
        self.note("info", "model unregistered", queued=len(self.pool.queue))
        self._serves_on = not ends_queue
        if ends_queue:
            self.pool.end_sequences()
            self.crew.set_size(0, None, now)

    def _end_serving(self, now: float) -> None:
        if self._serves_on:
            self._serves_on = False
            self.pool.end_sequences()
            self.crew.set_size(0, None, now)

    def no_worker(self) -> StokerError:
        """The error of a job that came while nobody would take it, and whether that is meant."""
        error = self.pool.no_worker()
        if self.state in RUNNING and not self.crew.max_workers:
            error.details["is_shut_down"] = True
        return error

    def kill_all(self, now: float) -> None:
        self._end_serving(now)
        for worker in list(self.crew.slots.workers()):
            if worker.signalled_at is None:
                self.crew.ladder.kill(worker, RETIRED, now)

    def sweep_waiters(self, now: float) -> None:
        self.waiters.expire(now)
        if self.waiters.expire_removal(now):
            self.kill_all(now)

    # -- what has come true ---------------------------------------------------

    def settle(self) -> bool:
        """Answer waiting calls, flush a queue nobody will work on.

        Returns True if the version must go, because its registration failed.
        """
        crew = self.crew
        if self.waiters.fail(crew.loads.failure, crew.loads.failure_count):
            return True
        if not crew.has_hope and not crew.is_asleep:
            if crew.loads.failure is not None and self.state in RUNNING:
                self._move(VersionEvent.FAIL)
                self.note("warning", "model cannot run", reason=crew.loads.failure.message)
            self.pool.flush(self.pool.no_worker)
        if crew.is_settled:
            if self.state is VersionState.SCALING:
                self._move(VersionEvent.SETTLED)
            self.waiters.resolve()
        elif self.state is VersionState.STEADY:
            self._move(VersionEvent.LOST)
        return False

    def settle_leaving(self, error: Callable[[], StokerError], now: float) -> bool:
        """Returns True when the last worker of a version that leaves is gone."""
        if self._serves_on:
            if self.pool.queue.pending and self.crew.has_hope:
                return False
            self._end_serving(now)
        # Also what a worker that died on its way out gave back.
        self.pool.flush(error)
        if self.crew.slots:
            return False
        self._move(VersionEvent.EMPTIED)
        self._actions.append(Release(self.spec))
        self.waiters.resolve_removal()
        return True

    def _move(self, event: VersionEvent) -> None:
        self.state = move(self.state, event)

    def note(self, level: str, event: str, **facts: object) -> None:
        spec = self.spec
        self._actions.append(
            Note(level, event, {"model": spec.model, "version": spec.version, **facts})
        )
