"""The worker processes of one version: started, watched, replaced, retired.

A crew has slots.  A slot is a place for one worker with a number that clients
see (9000, 9001, ...); when its process dies the slot waits out its back-off
and gets another.  The crew decides; processes are started and signalled by
whoever carries out the actions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from stoker.errors import NoWorker, StokerError, WorkerDied, WorkerOutOfMemory
from stoker.supervisor.actions import Abort, Action, Kill, Note, SendLeave, SendLoad, Spawn
from stoker.supervisor.pools import Pool
from stoker.supervisor.quarantine import Loss
from stoker.supervisor.restarts import RestartRecord, after_death
from stoker.supervisor.versions import Failure, VersionSpec
from stoker.supervisor.workers import Worker, WorkerEvent, WorkerState

#: Between SIGABRT, which writes the stack, and SIGKILL.
ABORT_GRACE_S: Final = 2.0
#: For a worker that holds nothing and was told to leave.
LEAVE_GRACE_S: Final = 10.0
#: A SIGKILL that brought no exit is sent again; a process in an uninterruptible
#: driver call dies only when the call returns.
KILL_AGAIN_S: Final = 5.0
#: Why we kill, where it matters afterwards.
RETIRED: Final = "retired"
SILENT: Final = "no answer within response_timeout"


class Exit(NamedTuple):
    """How a process ended, in words; `is_oom_like` when the kernel's memory killer is likely."""

    words: str
    is_oom_like: bool = False
    last_line: str = ""


class Devices(Protocol):
    """Which device a new worker gets; see placement."""

    def place(self, worker_id: int, spec: VersionSpec) -> int | None: ...

    def release(self, worker_id: int) -> None: ...


class Numbers(Protocol):
    """Numbers that are never used twice."""

    def next_worker_id(self) -> int: ...

    def next_slot(self) -> int: ...


@dataclass(slots=True)
class Slot:
    """A place for one worker.

    Attributes:
        restart_at: When the next process is due; None while there is one, or
            when the slot is given up.
    """

    number: int
    created_at: float
    record: RestartRecord = field(default_factory=RestartRecord)
    worker: Worker | None = None
    restart_at: float | None = None
    restarts: int = 0
    is_retiring: bool = False
    is_given_up: bool = False
    load_failure: Failure | None = None

    @property
    def is_ready(self) -> bool:
        worker = self.worker
        return worker is not None and worker.state in (WorkerState.READY, WorkerState.BUSY)


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
        self.has_ever_loaded = False
        #: Why the latest load failed; cleared when one succeeds.
        self.failure: Failure | None = None
        #: Counts failures, so that a waiter can tell one that came after it.
        self.failure_count = 0
        self._pool = pool
        self._actions = actions
        self._numbers = numbers
        self._devices = devices

    # -- what there is --------------------------------------------------------

    def workers(self) -> Iterator[Worker]:
        for slot in self.slots:
            if slot.worker is not None:
                yield slot.worker

    @property
    def staying(self) -> list[Slot]:
        return [slot for slot in self.slots if not slot.is_retiring]

    @property
    def ready_count(self) -> int:
        return sum(slot.is_ready for slot in self.slots)

    @property
    def has_hope(self) -> bool:
        """Whether a queued job may still find a worker."""
        # Asked for every job, and nearly always answered by the first slot.
        for slot in self.slots:  # noqa: SIM110
            if not slot.is_retiring and not slot.is_given_up:
                return True
        return False

    @property
    def is_settled(self) -> bool:
        """Every wanted worker is ready and every retired one is gone."""
        return self.ready_count >= self.min_workers and len(self.slots) == len(self.staying)

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
            elif slot.is_retiring and drain_s is not None:
                self._hurry(slot, drain_s, now)
        staying = self.staying
        for slot in reversed(staying[wanted:]):
            self._retire(slot, drain_s, now)
        for _ in range(wanted - len(staying)):
            slot = Slot(self._numbers.next_slot(), now, restart_at=now)
            self.slots.append(slot)
        self._start_due(now)

    def _start_due(self, now: float) -> None:
        for slot in self.slots:
            if slot.restart_at is not None and slot.restart_at <= now:
                slot.restart_at = None
                self._spawn(slot, now)

    def _spawn(self, slot: Slot, now: float) -> None:
        worker_id = self._numbers.next_worker_id()
        device = self._devices.place(worker_id, self.spec)
        slot.worker = Worker(worker_id, slot.number, device, now)
        slot.load_failure = None
        self._actions.append(Spawn(worker_id, slot.number, self.spec, device))

    # -- what workers say -----------------------------------------------------

    def hello(self, worker: Worker, now: float) -> None:
        """It runs; tell it what to load."""
        if worker.state is WorkerState.DYING:
            return
        worker.move(WorkerEvent.HELLO)
        worker.quiet_since = now
        self._actions.append(SendLoad(worker.worker_id, self.spec, worker.device))

    def loaded(self, worker: Worker, now: float) -> None:
        if worker.state is WorkerState.DYING:
            return
        worker.move(WorkerEvent.LOADED)
        worker.quiet_since = now
        worker.loaded_at = now
        self.has_ever_loaded = True
        self.failure = None
        self._note("info", "worker ready", worker, load_s=round(now - worker.started_at, 3))
        self._pool.join(worker)

    def load_failed(self, worker: Worker, failure: Failure, now: float) -> None:
        """It says that it cannot load, and exits by itself."""
        if worker.state is WorkerState.DYING:
            return
        worker.move(WorkerEvent.LOAD_FAILED)
        worker.signalled_at = now
        worker.why_killed = "load failed"
        if self.failure is None or self.failure.last_line != failure.last_line:
            # Once per reason, however many workers find it out.
            self._note("error", "load failed", worker, last_line=failure.last_line)
        self._slot_of(worker).load_failure = failure
        self._fail(failure)

    def exited(self, worker: Worker, how: Exit, now: float) -> None:
        """The process is gone, whatever the reason."""
        slot = self._slot_of(worker)
        had_loaded = worker.loaded_at is not None
        was_expected = slot.is_retiring or worker.why_killed == "load failed"
        worker.move(WorkerEvent.EXITED)
        slot.worker = None
        self._devices.release(worker.worker_id)
        failed = self._pool.lose(worker, self._loss_of(worker), self._error_for(worker, how))
        if not was_expected:
            self._note(
                "warning",
                "worker lost",
                worker,
                exit=how.words,
                likely="out of memory" if how.is_oom_like else worker.why_killed or "crash",
                jobs_failed=failed,
            )
        if slot.is_retiring:
            self.slots.remove(slot)
            self._note("info", "worker left", worker, exit=how.words)
        else:
            if not had_loaded and slot.load_failure is None:
                words = worker.why_killed or how.words
                is_oom_like = how.is_oom_like and not worker.why_killed
                message = f"The worker ended while loading: {words}."
                # Of one that was killed, the last line is only where it stood.
                last_line = words if worker.why_killed else how.last_line or words
                self._fail(Failure(message, last_line, is_oom_like))
            self._replace(slot, worker, now)

    def _replace(self, slot: Slot, worker: Worker, now: float) -> None:
        slot.restarts += 1
        if slot.load_failure is not None and not self.has_ever_loaded:
            slot.is_given_up = True
            return
        restart = after_death(
            slot.record, now=now, loaded_at=worker.loaded_at, max_retry_s=self.spec.max_retry_s
        )
        slot.record, slot.restart_at = restart.record, restart.at
        if restart.at is None:
            slot.is_given_up = True
            self._note("error", "worker given up", worker, restarts=slot.restarts)
        else:
            self._note(
                "info",
                "worker restarts",
                worker,
                in_s=round(restart.at - now, 3),
                restarts=slot.restarts,
            )
            self._start_due(now)

    def _fail(self, failure: Failure) -> None:
        self.failure = failure
        self.failure_count += 1

    def _hurry(self, slot: Slot, drain_s: float, now: float) -> None:
        """A worker that drains already gets no more time than the latest call allows."""
        worker = slot.worker
        if worker is None or worker.state is not WorkerState.DRAINING:
            return
        if drain_s <= 0:
            self.kill(worker, RETIRED, now)
        else:
            known = worker.drain_until
            worker.drain_until = now + drain_s if known is None else min(known, now + drain_s)

    # -- retiring and killing -------------------------------------------------

    def _retire(self, slot: Slot, drain_s: float | None, now: float) -> None:
        slot.is_retiring = True
        slot.restart_at = None
        worker = slot.worker
        if worker is None:
            self.slots.remove(slot)
        elif not worker.can(WorkerEvent.RETIRE):
            # Nothing is lost with a worker that has not loaded.
            self.kill(worker, RETIRED, now)
        elif drain_s is not None and drain_s <= 0:
            self._pool.retire(worker)
            self.kill(worker, RETIRED, now)
        else:
            worker.move(WorkerEvent.RETIRE)
            worker.quiet_since = now if not worker.in_hand else worker.quiet_since
            worker.drain_until = None if drain_s is None else now + drain_s
            worker.is_told_to_leave = True
            self._pool.retire(worker)
            self._actions.append(SendLeave(worker.worker_id))

    def kill(self, worker: Worker, reason: str, now: float) -> None:
        """SIGKILL at once."""
        self._pool.retire(worker)
        worker.move(WorkerEvent.KILL)
        worker.why_killed = worker.why_killed or reason
        worker.signalled_at = now
        self._actions.append(Kill(worker.worker_id, reason))

    def out_of_reach(self, worker: Worker, now: float) -> None:
        """It hung up: almost always it is dead and we are about to hear.

        It gets nothing more.  If it is not gone soon it is killed, unless it
        hung up because it leaves: that has a grace of its own.
        """
        if worker.state is WorkerState.DRAINING and not worker.in_hand:
            return
        self._pool.retire(worker)
        if worker.state is not WorkerState.DYING:
            worker.move(WorkerEvent.KILL)
            worker.was_aborted = True
            worker.signalled_at = now

    def _abort(self, worker: Worker, reason: str, now: float) -> None:
        """SIGABRT first, so that the log shows where it hangs; SIGKILL a little later."""
        self._pool.retire(worker)
        worker.move(WorkerEvent.KILL)
        worker.why_killed = reason
        worker.was_aborted = True
        worker.signalled_at = now
        self._actions.append(Abort(worker.worker_id, reason))

    # -- time -----------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Everything that is due: restarts, silence, drains, signals that brought nothing."""
        self._start_due(now)
        is_limited = self.spec.has_time_limits
        for worker in list(self.workers()):
            if worker.state is WorkerState.DYING:
                self._press(worker, now)
            elif worker.state in (WorkerState.STARTING, WorkerState.LOADING):
                if is_limited and now - worker.started_at > self.spec.startup_timeout_s:
                    self._abort(worker, "no answer within startup_timeout", now)
            elif is_limited and self._is_silent(worker, now):
                self._abort(worker, SILENT, now)
            elif worker.state is WorkerState.DRAINING and self._has_drained_too_long(worker, now):
                self.kill(worker, RETIRED, now)

    def _is_silent(self, worker: Worker, now: float) -> bool:
        waited_s = now - worker.quiet_since
        return bool(worker.in_hand) and waited_s > self.spec.response_timeout_s

    def _has_drained_too_long(self, worker: Worker, now: float) -> bool:
        if not worker.in_hand:
            return now - worker.quiet_since > LEAVE_GRACE_S
        return worker.drain_until is not None and now >= worker.drain_until

    def _press(self, worker: Worker, now: float) -> None:
        assert worker.signalled_at is not None
        grace_s = ABORT_GRACE_S if worker.was_aborted else KILL_AGAIN_S
        if now - worker.signalled_at >= grace_s:
            worker.was_aborted = False
            worker.signalled_at = now
            worker.why_killed = worker.why_killed or "out of reach"
            self._actions.append(Kill(worker.worker_id, worker.why_killed))

    # -- words ----------------------------------------------------------------

    def _loss_of(self, worker: Worker) -> Loss:
        if worker.why_killed == RETIRED:
            return Loss.RETIRED
        return Loss.SILENT if worker.why_killed == SILENT else Loss.CRASHED

    def _error_for(self, worker: Worker, how: Exit) -> Callable[[], StokerError]:
        facts = {"model": self.spec.model, "version": self.spec.version}
        if worker.why_killed == RETIRED:
            return lambda: NoWorker("The worker was stopped before it could answer.", **facts)
        if how.is_oom_like and not worker.why_killed:
            return lambda: WorkerOutOfMemory(
                "The worker was killed, most likely for want of memory.", exit=how.words, **facts
            )
        reason = "timeout" if worker.why_killed == SILENT else worker.why_killed or "exit"
        return lambda: WorkerDied(
            "The worker died with the request in hand.", reason=reason, exit=how.words, **facts
        )

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
