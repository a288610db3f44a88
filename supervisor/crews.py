"""The worker processes of one version: started, watched, replaced, retired.

A crew has slots.  A slot is a place for one worker with a number that clients
see (9000, 9001, ...); when its process dies the slot waits out its back-off
and gets another.  The crew decides; processes are started and signalled by
whoever carries out the actions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from stoker.supervisor.actions import Action, Adopt, Note, SendLoad, Spawn
from stoker.supervisor.deaths import RETIRED, Death, Exit, cause_of, error_of, loss_of
from stoker.supervisor.device_groups import Group, even_groups, share_out
from stoker.supervisor.ladder import Ladder
from stoker.supervisor.orphans import Orphan
from stoker.supervisor.pools import Pool
from stoker.supervisor.recovery import Lost
from stoker.supervisor.recycling import AGAIN_S
from stoker.supervisor.restarts import RestartRecord, after_death
from stoker.supervisor.slots import Slot
from stoker.supervisor.versions import Failure, VersionSpec
from stoker.supervisor.workers import Worker, WorkerEvent, WorkerState

LOAD_FAILED: Final = "load failed"
TOO_LARGE: Final = "its memory passed worker_memory_limit_mb"


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


#: Of a handler of MMS that serves although its start complained.
FLAWED: Final = "The handler's initialize failed; it serves all the same, as MMS's workers do."


class Crew:
    """Slots of one version, and what is wanted of them."""

    def __init__(
        self,
        spec: VersionSpec,
        pool: Pool,
        actions: list[Action],
        numbers: Numbers,
        devices: Devices,
    ) -> None:
        self.spec = spec
        self.slots: list[Slot] = []
        self.min_workers = 0
        self.max_workers = 0
        self._groups: tuple[Group, ...] = ()
        self.has_ever_loaded = False
        #: Why the latest load failed; cleared when one succeeds.
        self.failure: Failure | None = None
        #: Counts failures, so that a waiter can tell one that came after it.
        self.failure_count = 0
        #: Ends that nobody wanted, and the latest of them.
        self.death_count = 0
        self.last_death: Death | None = None
        self.recycled_count = 0
        #: How long a worker takes from its start until it is ready; None before the first was.
        self.start_s: float | None = None
        #: The largest of its workers, as far as they were measured.
        self.worker_bytes = 0
        #: Workers of a predecessor that died on their way to us.
        self.lost_orphans = 0
        self._recycle_at = 0.0
        self._pool = pool
        self._actions = actions
        self._numbers = numbers
        self._devices = devices
        self.ladder = Ladder(spec, pool, actions)

    # -- what there is --------------------------------------------------------

    def workers(self) -> Iterator[Worker]:
        for slot in self.slots:
            if slot.worker is not None:
                yield slot.worker

    @property
    def groups(self) -> tuple[Group, ...]:
        """Its workers by device, with the bounds of each."""
        return self._groups or (Group(None, self.min_workers, self.max_workers),)

    def bound(self, min_workers: int, max_workers: int, groups: tuple[Group, ...] = ()) -> None:
        """Have so many workers, in all and on each device."""
        self.min_workers, self.max_workers = min_workers, max_workers
        if not groups and max_workers and self.spec.group_devices:
            groups = even_groups(self.spec.group_devices, min_workers, max_workers)
        self._groups = groups

    @property
    def staying(self) -> list[Slot]:
        """Without a successor that has not taken over yet."""
        return [slot for slot in self.slots if not slot.is_retiring and slot.replaces is None]

    @property
    def ready_count(self) -> int:
        return sum(slot.is_ready and not slot.is_retiring for slot in self.slots)

    @property
    def has_hope(self) -> bool:
        """Whether a queued job may still find a worker."""
        # Asked for every job, and nearly always answered by the first slot.
        for slot in self.slots:
            if not slot.is_retiring and not slot.is_given_up:
                return True
        return self._pool.serves_on

    @property
    def is_asleep(self) -> bool:
        """It has no worker because none was needed; a request may have one."""
        return (
            self.max_workers > 0
            and self.failure is None
            and all(slot.is_retiring for slot in self.slots)
        )

    @property
    def is_loading(self) -> bool:
        """Workers are wanted, and none has ever loaded or failed to."""
        return self.min_workers > 0 and not self.has_ever_loaded and self.failure is None

    @property
    def awaits_return(self) -> bool:
        """Whether a worker that our predecessor may have given jobs has not come back yet."""
        return any(worker.may_hold_unknown_jobs for worker in self.workers())

    @property
    def running_count(self) -> int:
        """Workers that serve or will: those that load count, those that must go do not."""
        return sum(slot.worker is not None and not slot.is_given_up for slot in self.staying)

    @property
    def is_settled(self) -> bool:
        """Every wanted worker is ready and every surplus one is gone."""
        if any(slot.is_retiring and not slot.is_replaced for slot in self.slots):
            return False
        return self.ready_count >= self.min_workers

    def is_healthy(self, now: float) -> bool:
        """The peer's rule: enough workers that are not, or not too long, in recovery."""
        healthy = 0
        for slot in self.staying:
            since = slot.record.recovery_since
            is_recovering = since is not None and not slot.is_ready
            if slot.is_given_up:
                continue
            if not is_recovering or (since is not None and now - since < self.spec.max_retry_s):
                healthy += 1
        return healthy >= self.min_workers

    # -- how many -------------------------------------------------------------

    def set_size(self, wanted: int, drain_s: float | None, now: float) -> None:
        """Have `wanted` slots: start what is missing, retire surplus from the end.

        Args:
            drain_s: How long a retired worker may take to finish what it
                holds; None for ever, 0 to kill it now.
        """
        for slot in self.slots:
            if slot.is_given_up or slot.restart_at is not None:
                # Somebody looks after it: what was learnt from deaths is old news.
                slot.is_given_up, slot.record, slot.restart_at = False, RestartRecord(), now
            elif slot.is_retiring and drain_s is not None and slot.worker is not None:
                # One that drains already gets no more time than the latest call allows.
                self._hurry(slot.worker, drain_s, now)
        # The same of why the last load failed.
        self.failure = None
        self._recycle_at = now
        self.inherit_more(wanted, now)
        self._have(wanted, _youngest_first, drain_s, now)
        self._move_between_devices(now)

    def resize(self, wanted: int, now: float) -> None:
        """Have `wanted` slots because of the load, which forgives and hurries nobody."""
        # With `number_gpu` the first ones are those on GPUs.
        is_counted = self.spec.number_gpu is not None
        self._have(wanted, _youngest_first if is_counted else self._least_needed, None, now)
        if not wanted:
            # What failed has been left behind; the next request is a new try.
            self.failure = None

    def _have(
        self,
        wanted: int,
        in_order: Callable[[list[Slot]], list[Slot]],
        drain_s: float | None,
        now: float,
    ) -> None:
        """Add slots to the groups that are to have more, retire from those that are not."""
        staying = self.staying
        counts = Counter(slot.device for slot in staying)
        shares = share_out(self.groups, counts, wanted)
        for device in {**dict.fromkeys(counts), **shares}:
            surplus = counts[device] - shares.get(device, 0)
            here = [slot for slot in staying if slot.device == device]
            for slot in in_order(here)[: max(0, surplus)]:
                self._retire(slot, drain_s, now)
            for _ in range(-surplus):
                fresh = Slot(self._numbers.next_slot(), now, restart_at=now, device=device)
                self.slots.append(fresh)
        self._start_due(now)

    def _least_needed(self, slots: list[Slot]) -> list[Slot]:
        """In the order to let them go: without a worker, idle for longest, at work.

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

    def inherit_more(self, most: int, now: float) -> None:
        """Keep a predecessor's workers beyond those that are wanted at once, up to `most`."""
        while len(self.staying) < most:
            inherited = self._inherit(now)
            if inherited is None:
                return
            self.slots.append(inherited)

    def _inherit(self, now: float) -> Slot | None:
        """A slot with a worker in it that has loaded already."""
        while (orphan := self._numbers.next_orphan(self.spec)) is not None:
            try:
                device = self._devices.keep(orphan.worker_id, self.spec, orphan.devices)
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
            self._actions.append(Adopt(worker.worker_id, orphan.slot, orphan.pid, self.spec))
            return Slot(orphan.slot, now, worker=worker, device=device if self._groups else None)
        return None

    def _index_of(self, slot: Slot) -> int:
        """Its place among those that stay; a successor's is that of the one it replaces."""
        meant = slot.replaces or slot
        return next((i for i, each in enumerate(self.staying) if each is meant), len(self.slots))

    def _move_between_devices(self, now: float) -> None:
        """Let a worker go that computes where `number_gpu` does not want it; another comes."""
        if self.spec.number_gpu is None:
            return
        for index, slot in enumerate(self.staying):
            worker = slot.worker
            if worker is None or slot.is_renewing or slot.replaces is not None:
                continue
            is_on_gpu = worker.device is not None
            if is_on_gpu != self._devices.has_gpu(self.spec, index):
                slot.is_renewing = True
                self._note("info", "worker changes device", worker)
                self.ladder.drain(worker, None, now)

    def _hurry(self, worker: Worker, drain_s: float, now: float) -> None:
        if worker.state is WorkerState.DRAINING or self._pool.is_winding_down(worker):
            self.ladder.drain(worker, drain_s, now)

    def _start_due(self, now: float) -> None:
        for slot in self.slots:
            if slot.restart_at is not None and slot.restart_at <= now:
                slot.restart_at = None
                self._spawn(slot, now)

    def _spawn(self, slot: Slot, now: float) -> None:
        worker_id = self._numbers.next_worker_id()
        device = None
        if slot.device is not None:
            device = self._devices.place_on(worker_id, self.spec, slot.device)
        elif self.spec.number_gpu is None or self._devices.has_gpu(self.spec, self._index_of(slot)):
            device = self._devices.place(worker_id, self.spec)
        else:
            self._devices.place_on_cpu(worker_id, self.spec)
        slot.worker = Worker(worker_id, slot.number, device, now)
        slot.load_failure = None
        self._actions.append(Spawn(worker_id, slot.number, self.spec, device))

    # -- what workers say -----------------------------------------------------

    def came_back(self, worker: Worker, now: float) -> None:
        """It has lost its supervisor and found us; its model is as it was."""
        worker.is_awaited = False
        if worker.state is WorkerState.DYING:
            return
        worker.move(WorkerEvent.BACK)
        worker.quiet_since = worker.loaded_at = now
        self.has_ever_loaded = True
        self.failure = None
        took_s = round(now - worker.started_at, 3)
        self._note("info", "worker adopted", worker, back_after_s=took_s)
        self._pool.join(worker)

    def hello(self, worker: Worker, now: float) -> None:
        """It runs; tell it what to load."""
        if worker.state is WorkerState.DYING:
            return
        worker.move(WorkerEvent.HELLO)
        worker.quiet_since = now
        self._actions.append(SendLoad(worker.worker_id, self.spec, worker.device))

    def loaded(self, worker: Worker, now: float, flaw: str = "") -> None:
        if worker.state is WorkerState.DYING:
            return
        worker.move(WorkerEvent.LOADED)
        worker.quiet_since = now
        worker.loaded_at = now
        self.has_ever_loaded = True
        self.failure = Failure(FLAWED, flaw) if flaw else None
        if flaw:
            self._note("error", "initialize failed", worker, last_line=flaw)
        took_s = now - worker.started_at
        # Smoothed: one start that met a cold disk is not how all of them are.
        known_s = self.start_s
        self.start_s = took_s if known_s is None else known_s + (took_s - known_s) / 4
        self._note("info", "worker ready", worker, load_s=round(took_s, 3))
        self._pool.join(worker)
        slot = self._slot_of(worker)
        if slot.replaces is not None:
            old, slot.replaces = slot.replaces, None
            old.is_replaced = True
            self._retire(old, None, now)

    def refuse(self, worker: Worker, failure: Failure) -> None:
        """It cannot be started, and no other could be; its end follows."""
        slot = self._slot_of(worker)
        slot.load_failure = failure
        worker.why_killed = worker.why_killed or LOAD_FAILED
        if slot.replaces is None:
            if self.failure is None or self.failure.last_line != failure.last_line:
                self._note("error", "load failed", worker, last_line=failure.last_line)
            self._fail(failure)

    def load_failed(self, worker: Worker, failure: Failure, now: float) -> None:
        """It says that it cannot load, and exits by itself."""
        if worker.state is WorkerState.DYING:
            return
        worker.move(WorkerEvent.LOAD_FAILED)
        worker.signalled_at = now
        worker.why_killed = LOAD_FAILED
        slot = self._slot_of(worker)
        slot.load_failure = failure
        if slot.replaces is not None:
            return  # the old worker serves on; told when this one is gone
        if self.failure is None or self.failure.last_line != failure.last_line:
            # Once per reason, however many workers find it out.
            self._note("error", "load failed", worker, last_line=failure.last_line)
        self._fail(failure)

    def exited(self, worker: Worker, how: Exit, now: float) -> None:
        """The process is gone, whatever the reason."""
        slot, why_killed = self._slot_of(worker), worker.why_killed
        self.lost_orphans += worker.may_hold_unknown_jobs
        worker.move(WorkerEvent.EXITED)
        slot.worker = None
        self._devices.release(worker.worker_id)
        lost = self._pool.lose(
            worker,
            loss_of(why_killed, how),
            lambda attempts: error_of(self.spec, why_killed, how, attempts),
            f"{how.words}: {cause_of(why_killed, how)}",
            now,
        )
        if slot.is_retiring:
            self.slots.remove(slot)
            self._note("info", "worker left", worker, exit=how.words)
        elif slot.is_renewing and why_killed in ("", RETIRED):
            slot.is_renewing, slot.restart_at = False, now
            self._note("info", "worker left", worker, exit=how.words)
            self._start_due(now)
        else:
            if why_killed != LOAD_FAILED:
                self._note_death(worker, how, lost, now)
            if slot.replaces is not None:
                self._lose_successor(slot, worker, how, now)
            else:
                self._replace(slot, worker, how, now, is_explained=lost.is_explained)

    def _note_death(self, worker: Worker, how: Exit, lost: Lost, now: float) -> None:
        cause = cause_of(worker.why_killed, how)
        self.death_count += 1
        self.last_death = Death(
            now, worker.slot, worker.pid, how.words, cause, lost.again, lost.failed
        )
        self._note(
            "warning",
            "worker lost",
            worker,
            exit=how.words,
            likely=cause,
            jobs_again=lost.again,
            jobs_failed=lost.failed,
            deaths=self.death_count,
        )

    def _replace(
        self, slot: Slot, worker: Worker, how: Exit, now: float, *, is_explained: bool
    ) -> None:
        slot.restarts += 1
        slot.is_renewing = False
        for successor in self.slots:
            if successor.replaces is slot:
                # It is on its way already.
                successor.replaces, successor.restarts = None, slot.restarts
                successor.record = slot.record
                self.slots.remove(slot)
                return
        if worker.loaded_at is None and slot.load_failure is None:
            self._fail(_end_of_load(worker, how))
        if slot.load_failure is not None and not self.has_ever_loaded:
            slot.is_given_up = True
            return
        restart = after_death(
            slot.record,
            now=now,
            loaded_at=worker.loaded_at,
            max_retry_s=self.spec.max_retry_s,
            is_explained=is_explained,
        )
        slot.record, slot.restart_at = restart.record, restart.at
        if restart.at is None:
            self._give_up(slot, worker, how, now)
        else:
            self._note(
                "info",
                "worker restarts",
                worker,
                in_s=round(restart.at - now, 3),
                restarts=slot.restarts,
            )
            self._start_due(now)

    def _give_up(self, slot: Slot, worker: Worker, how: Exit, now: float) -> None:
        slot.is_given_up = True
        since = slot.record.recovery_since
        tried_for_s = 0.0 if since is None else now - since
        cause = cause_of(worker.why_killed, how)
        self._note(
            "error",
            "worker given up",
            worker,
            restarts=slot.restarts,
            tried_for_s=round(tried_for_s, 3),
            exit=how.words,
            likely=cause,
        )
        if self.failure is None:
            message = (
                f"Its workers kept dying for {tried_for_s:.0f} s, at last: {how.words}, {cause}."
            )
            self._fail(Failure(message, how.last_line or how.words, how.is_oom_like))

    def _fail(self, failure: Failure) -> None:
        self.failure = failure
        self.failure_count += 1

    # -- recycling ------------------------------------------------------------

    def measured(self, worker: Worker, memory_bytes: int, now: float) -> None:
        """How much memory it holds just now."""
        worker.memory_bytes = memory_bytes
        if worker.loaded_at is not None:
            self.worker_bytes = max(self.worker_bytes, memory_bytes)
        kill_bytes = self.spec.limits.kill_bytes
        if 0 < kill_bytes <= memory_bytes and worker.state is not WorkerState.DYING:
            mib = memory_bytes >> 20
            self._note("error", "worker is too large and is killed", worker, memory_mib=mib)
            self.ladder.kill(worker, TOO_LARGE, now)

    def _recycle(self, now: float) -> None:
        """Begin to replace the worker that is due and oldest; one at a time, as that takes room.

        The oldest, or one whose successors are due again at every look would
        keep the others from their turn.
        """
        if now < self._recycle_at:
            return
        due: tuple[Slot, str] | None = None
        oldest_at = float("inf")
        for slot in self.slots:
            if slot.replaces is not None or slot.is_renewing:
                return
            if slot.worker is not None and self._pool.is_winding_down(slot.worker):
                return  # there would be more and more of them
            if slot.is_ready and not slot.is_retiring:
                assert slot.worker is not None
                why = self.spec.limits.passed_by(slot.worker, now)
                loaded_at = slot.worker.loaded_at or 0.0
                if why is not None and loaded_at < oldest_at:
                    due, oldest_at = (slot, why), loaded_at
        if due is None:
            return
        old, why = due
        assert old.worker is not None
        self.recycled_count += 1
        self._note("info", "worker recycles", old.worker, why=why)
        successor = Slot(self._numbers.next_slot(), now, replaces=old, device=old.device)
        self.slots.insert(self.slots.index(old) + 1, successor)
        self._spawn(successor, now)

    def _lose_successor(self, slot: Slot, worker: Worker, how: Exit, now: float) -> None:
        """It never came to take over; the old worker serves on."""
        old, failure = slot.replaces, slot.load_failure
        self.slots.remove(slot)
        assert old is not None
        self._recycle_at = now + AGAIN_S
        is_for_room = how.is_oom_like or (failure is not None and failure.is_out_of_memory)
        self._note(
            "warning",
            "successor did not load",
            worker,
            last_line=how.last_line or how.words if failure is None else failure.last_line,
            old_worker=old.number,
            leaves_first=is_for_room,
        )
        if is_for_room and old.worker is not None and old.worker.can(WorkerEvent.RETIRE):
            old.is_renewing = True
            self.ladder.drain(old.worker, None, now)

    def _retire(self, slot: Slot, drain_s: float | None, now: float) -> None:
        slot.is_retiring = True
        slot.restart_at = None
        for successor in self.slots:
            if successor.replaces is slot and not successor.is_retiring:
                self._retire(successor, 0.0, now)
                break
        if slot.worker is None:
            self.slots.remove(slot)
        else:
            self.ladder.drain(slot.worker, drain_s, now)

    # -- time -----------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Everything that is due: restarts, silence, drains, signals that brought nothing."""
        self._start_due(now)
        if self.spec.limits:
            self._recycle(now)
        for worker in list(self.workers()):
            self.ladder.sweep(worker, now)

    # -- words ----------------------------------------------------------------

    def _slot_of(self, worker: Worker) -> Slot:
        for slot in self.slots:
            if slot.worker is worker:
                return slot
        raise LookupError(f"worker {worker.worker_id} has no slot")

    def _note(self, level: str, event: str, worker: Worker, **facts: object) -> None:
        self._actions.append(
            Note(
                level,
                event,
                {
                    "model": self.spec.model,
                    "version": self.spec.version,
                    "worker": worker.slot,
                    "worker_pid": worker.pid,
                    **facts,
                },
            )
        )


def _youngest_first(slots: list[Slot]) -> list[Slot]:
    return slots[::-1]


def _end_of_load(worker: Worker, how: Exit) -> Failure:
    """Of a worker that ended without a word about why it cannot load."""
    words = worker.why_killed or how.words
    # Of one that was killed, the last line is only where it stood.
    last_line = words if worker.why_killed else how.last_line or words
    is_oom_like = how.is_oom_like and not worker.why_killed
    return Failure(f"The worker ended while loading: {words}.", last_line, is_oom_like)
