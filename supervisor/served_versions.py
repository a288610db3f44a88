"""Every version that is served: how it comes, how many workers it has, how it leaves.

What a version is and does follows from `served.py`; here is what all of them
share: the registry, the numbers of workers and slots, the host's memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

from stoker.errors import ShuttingDown, StokerError, Unregistered
from stoker.supervisor.commons import Commons
from stoker.supervisor.concurrent_pools import ConcurrentPool
from stoker.supervisor.concurrent_sequence_pool import ConcurrentSequencePool
from stoker.supervisor.crews import Crew
from stoker.supervisor.device_groups import Group
from stoker.supervisor.memory_room import MemoryRoom
from stoker.supervisor.pools import Pool
from stoker.supervisor.registry import Registry
from stoker.supervisor.sequence_pool import SequencePool
from stoker.supervisor.served import Served
from stoker.supervisor.supply import Devices
from stoker.supervisor.versions import Failure, VersionKey, VersionSpec
from stoker.supervisor.waiting import Waiter
from stoker.supervisor.worker_numbers import WorkerNumbers
from stoker.supervisor.workers import Worker

#: By whether workers work on many jobs at once, and whether jobs belong to sequences.
POOLS: Final[dict[tuple[bool, bool], type[Pool]]] = {
    (False, False): Pool,
    (False, True): SequencePool,
    (True, False): ConcurrentPool,
    (True, True): ConcurrentSequencePool,
}


class Dispatcher(Protocol):
    """The engine, as versions need it."""

    @property
    def is_stopping(self) -> bool: ...

    def touch(self, pool: Pool) -> None:
        """There may be something to send."""
        ...

    def forget(self, pool: Pool) -> None:
        """Nothing will be sent any more."""
        ...


class ServedVersions:
    """Those that are registered, and those that are leaving.

    Args:
        memory: Shared by those whose number of workers is not fixed.
        devices: Where new workers go.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        commons: Commons,
        numbers: WorkerNumbers,
        memory: MemoryRoom,
        devices: Devices,
    ) -> None:
        self.registry: Registry[Served] = Registry()
        #: Not registered any more, with workers that have not gone yet.
        self.leaving: list[Served] = []
        #: By id, each with the version that it works for.
        self.workers: dict[int, tuple[Served, Worker]] = {}
        self._dispatcher = dispatcher
        self._commons = commons
        self._numbers = numbers
        self._memory = memory
        self._devices = devices

    def __iter__(self) -> Iterator[Served]:
        yield from self.registry
        yield from self.leaving

    # -- coming ---------------------------------------------------------------

    def check_new(self, key: VersionKey) -> None:
        """Whether `register` would take it.  Raises VersionExists, ShuttingDown."""
        self._check_going_on()
        self.registry.check_free(key)

    def register(self, spec: VersionSpec) -> None:
        """Raises VersionExists, ShuttingDown."""
        self.check_new(spec.key)
        served = self._serve(spec)
        self.registry.add(spec.key, served)
        served.note("info", "model registered")

    def replace(self, spec: VersionSpec) -> None:
        """Serve another spec in the place of a version that has no workers.

        Raises:
            ModelNotFound, VersionNotFound, ShuttingDown.
        """
        self._check_going_on()
        known = self.registry.find(*spec.key)
        assert not known.crew.slots
        known.pool.flush(known.pool.no_worker)
        self.registry.replace(spec.key, self._serve(spec))

    def fail(self, key: VersionKey, failure: Failure, min_workers: int, max_workers: int) -> None:
        """A version without workers cannot run; so many are wanted of it."""
        self.registry.find(*key).fail(failure, min_workers, max_workers)

    def _serve(self, spec: VersionSpec) -> Served:
        kind: type[Pool] = POOLS[spec.jobs_at_once > 0, spec.sequences is not None]
        pool = kind(spec, self._commons)
        if self._numbers.has_dead(spec):
            pool.doubt()
        actions = self._commons.actions
        crew = Crew(spec, pool, actions, self._numbers, self._devices)
        return Served(spec, pool, crew, actions)

    def _check_going_on(self) -> None:
        if self._dispatcher.is_stopping:
            raise ShuttingDown("The server is stopping.")

    # -- how many workers -----------------------------------------------------

    def scale(
        self,
        key: VersionKey,
        min_workers: int,
        max_workers: int,
        now: float,
        *,
        drain_s: float | None = None,
        call: Any = None,
        wait_s: float = 0.0,
        is_registration: bool = False,
        groups: tuple[Group, ...] = (),
    ) -> None:
        """Set how many workers a version has, in all and, with `groups`, on each device.

        With `call`, that call is resolved when they are all ready and the
        surplus is gone ("ready"), when a worker fails to load (an error), or
        after `wait_s` ("partial").

        Raises:
            ModelNotFound, VersionNotFound, ShuttingDown.
        """
        self._check_going_on()
        served = self.registry.find(key.model, key.version)
        most = served.spec.most_workers
        if most is not None:
            min_workers, max_workers = min(min_workers, most), min(max_workers, most)
            # Each takes all the devices of its group.
            groups = tuple(
                Group(g.device, min(g.min_workers, 1), min(g.max_workers, 1)) for g in groups
            )
        if call is not None:
            failures = served.crew.loads.failure_count
            served.waiters.add(Waiter(call, now + wait_s, failures, is_registration))
        served.scale(min_workers, max_workers, drain_s, now, groups)
        if served.autoscaler is None:
            self._memory.discard(served)
        else:
            self._memory.add(served)
        if len(served.pool.queue):
            self._dispatcher.touch(served.pool)  # there may be room for more
        self.adopt_workers(served)
        self.settle(served, now)

    def autoscale(self, served: Served, now: float) -> None:
        """Have as many workers as its load needs and the memory allows."""
        served.autoscale(self._memory.room_for(served), now)

    def wake(self, served: Served, now: float) -> bool:
        """A request came, and nobody is there: may it wait for a worker?"""
        if not served.wake(self._memory.room_for(served), now):
            return False
        self.adopt_workers(served)
        return True

    def adopt_workers(self, served: Served) -> None:
        """Know its new workers by their ids."""
        for worker in served.crew.slots.workers():
            self.workers.setdefault(worker.worker_id, (served, worker))

    # -- leaving --------------------------------------------------------------

    def unregister(
        self,
        model: str,
        version: str | None,
        now: float,
        call: Any,
        wait_s: float,
        *,
        may_be_default: bool = False,
    ) -> None:
        """Take a version away; its workers finish what they hold.

        Where the model has other versions, they finish the queue as well: who asked for the
        default version has been accepted, and cannot know that it has changed.

        Resolves `call` when the last worker is gone, or with
        UnregisterTimeout after `wait_s`, when they are killed.

        Raises:
            ModelNotFound, VersionNotFound, DefaultVersionInUse.
        """
        served = self.registry.check_removable(model, version, may_be_default=may_be_default)
        is_only_one = len(self.registry.all_versions(model)) == 1
        self.remove(served, now, Waiter(call, now + wait_s), ends_queue=is_only_one)

    def withdraw(self, key: VersionKey, now: float) -> None:
        """Take a version away that should not have come, whatever is the default."""
        self.remove(self.registry.find(*key), now)

    def remove(
        self, served: Served, now: float, removal: Waiter | None = None, *, ends_queue: bool = True
    ) -> None:
        """Let it leave; `removal` is the call that waits for that.

        Args:
            ends_queue: What is queued is answered with an error.
        """
        self.registry.discard(served.spec.key)
        self._memory.discard(served)
        self.leaving.append(served)
        served.leave(self._gone(served), removal, now, ends_queue=ends_queue)
        if ends_queue and not self._dispatcher.is_stopping:
            served.pool.recall(lambda: self._gone(served))
        self.settle(served, now)

    def _gone(self, served: Served) -> StokerError:
        """What clients and waiting calls of a version that leaves are told."""
        if self._dispatcher.is_stopping:
            return ShuttingDown("The server is stopping; try another one.")
        spec = served.spec
        return Unregistered(
            f"Model {spec.model} was unregistered.", model=spec.model, version=spec.version
        )

    # -- what has come true ---------------------------------------------------

    def settle(self, served: Served, now: float) -> None:
        """After whatever happened to it: answer waiting calls, let it go when it is empty."""
        if served.is_leaving:
            if served.settle_leaving(lambda: self._gone(served), now):
                self.leaving.remove(served)
                self._dispatcher.forget(served.pool)
        elif served.settle():
            self.remove(served, now)
