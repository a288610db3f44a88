"""The supervisor's decisions in one piece: events in, actions out, time as a number.

The engine routes each event to the version, pool or crew it concerns and
keeps what spans them: the table of jobs, the time, the stop.  Which versions
there are is `served_versions.py`'s.  It touches no socket, process, clock or
file, so a seeded simulation can run millions of events through it
(tests/simulation).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from stoker.errors import ShuttingDown, StokerError, TooManyRequests, WorkerDied
from stoker.shares import Budget
from stoker.supervisor.actions import Action, Forward, LetGather, Refuse
from stoker.supervisor.commons import Commons
from stoker.supervisor.deaths import Exit
from stoker.supervisor.inheritance import Inheritance
from stoker.supervisor.jobs import (
    ENDS_IN_HAND,
    OR_WORKFLOW,
    SENT_AGAIN,
    TAKES_TURNS,
    WORKFLOW,
    Heard,
    Job,
    JobPool,
)
from stoker.supervisor.memory_room import MemoryRoom
from stoker.supervisor.quarantine import Contents
from stoker.supervisor.sent_again import SentAgain
from stoker.supervisor.sequences import KnownSequence
from stoker.supervisor.served import Served
from stoker.supervisor.served_versions import ServedVersions
from stoker.supervisor.supply import Devices
from stoker.supervisor.versions import Failure, VersionKey, VersionSpec
from stoker.supervisor.worker_numbers import WorkerNumbers
from stoker.supervisor.workers import Worker
from stoker.supervisor.workflow_runs import WorkflowRuns
from stoker.supervisor.workflows import Workflows
from stoker.wire.frames import CALL_MARK, FRONTEND_ID_BYTES, Reply, SubmittedJob

#: One coarse sweep looks at every deadline, instead of a timer per request.
SWEEP_S: Final = 0.25
#: Of a model that may be a workflow.
NOT_THERE: Final = frozenset({"model_not_found", "version_not_found"})
#: A job that is more than one for a queue.
UNUSUAL: Final = SENT_AGAIN | WORKFLOW


class Engine:
    """Decides everything; `take_actions` hands over what is to be done.

    Args:
        devices: Where new workers go.
        first_slot: `initial_worker_port`; slots are numbered from here and
            never twice.
        payload_bytes: `max_body_memory_bytes`, of which payloads that travel
            inline are counted here.
        contents: Reads requests that are suspected to kill workers; without
            it none is remembered.
    """

    def __init__(
        self,
        devices: Devices,
        first_slot: int = 9000,
        payload_bytes: int = 1 << 30,
        contents: Contents | None = None,
    ) -> None:
        self.is_stopping = False
        self._actions: list[Action] = []
        self._jobs: dict[bytes, Job] = {}
        self._budget = Budget(payload_bytes)
        self._heard: list[Heard] = []
        commons = Commons(
            self._jobs, self._actions, self._heard, self._next_batch_id, self._budget, contents
        )
        self.workflows = Workflows(self, self._actions)
        self.runs = WorkflowRuns(self.workflows, self, self._actions, self._heard, self._budget)
        self.memory = MemoryRoom()
        self.numbers = WorkerNumbers(first_slot)
        self.versions = ServedVersions(self, commons, self.numbers, self.memory, devices)
        # Asked for every job, and for every reply.
        self.registry = self.versions.registry
        self._workers = self.versions.workers
        self._inheritance = Inheritance()
        self._sent_again = SentAgain(self._inheritance, self.registry, self.numbers)
        #: Pools that got jobs since the last dispatch (a dict keeps the order).
        self._touched: dict[JobPool, None] = {}
        #: Pools with an incomplete batch that an idle worker should get later.
        self._due: dict[JobPool, None] = {}
        self._sequence = 0
        self._batch_id = 0
        self._swept_at = float("-inf")
        self._stop_at: float | None = None

    # -- actions --------------------------------------------------------------

    def take_actions(self) -> list[Action]:
        """Everything decided since the last call, in order."""
        actions = self._actions[:]
        self._actions.clear()
        return actions

    @property
    def job_count(self) -> int:
        """Jobs that have not ended."""
        return len(self._jobs)

    @property
    def payload_bytes(self) -> int:
        """Held here for jobs that have not ended."""
        return self._budget.taken_bytes

    @property
    def is_finished(self) -> bool:
        """After `stop`: every worker is gone."""
        return self.is_stopping and not self._workers and not self.runs.live

    # -- jobs -----------------------------------------------------------------

    def submit(self, job: SubmittedJob, now: float) -> None:
        """Accept or refuse one job; a job id that is held already is dropped."""
        job_id, model, version, deadline, flags, payload = job
        if job_id in self._jobs or (flags & UNUSUAL and self._is_dealt_with(job, now)):
            return
        try:
            # A run that was accepted before goes on to its end.
            if self.is_stopping and job_id[0] != CALL_MARK:
                raise ShuttingDown("The server is stopping; try another one.")
            if version is None and flags & TAKES_TURNS:
                served = self.registry.next_of(model, _has_room)
            else:
                served = self.registry.find(model, version)
            pool = served.pool
            asked = pool.tally.default if version is None else pool.tally.named
            asked.requests += 1
            if not served.crew.has_hope and not self.versions.wake(served, now):
                raise served.no_worker()
            if pool.uses_job_tickets and pool.lacks_ticket:
                raise served.no_worker()
            if pool.convictions:
                pool.recovery.check_content(job_id, payload, now)
            if pool.queue.room <= 0:
                raise pool.queue_full(now)
            if not self._budget.take(len(payload), pool.payload_bytes):
                raise TooManyRequests(
                    "Too many requests are in memory; try again later.", model=model
                )
        except StokerError as error:
            if flags & OR_WORKFLOW and error.code in NOT_THERE and self.workflows.knows(job):
                self._begin_run(job, now)
                return
            if "version" in error.details and version is None:
                error.details["version"] = None
            if job_id[0] == CALL_MARK:
                self._heard.append((job_id, error))
            else:
                self._actions.append(Refuse(job_id, error))
            return
        client_timeout_s = served.spec.client_timeout_s
        if client_timeout_s > 0 and now + client_timeout_s < deadline:
            deadline, flags = now + client_timeout_s, flags | ENDS_IN_HAND
        self._sequence += 1
        pool.submit(Job(job_id, payload, deadline, now, self._sequence, flags, asked))
        self._touched[pool] = None

    def overhear(self, jobs: list[SubmittedJob], now: float) -> None:
        """They will be sent again, but our predecessor never had them."""
        self._inheritance.overhear(jobs, now)

    def _is_dealt_with(self, job: SubmittedJob, now: float) -> bool:
        """Of a job that is no plain one, whether there is nothing to queue (yet)."""
        if job.flags & WORKFLOW:
            self._begin_run(job, now)
            return True
        try:
            return not self.is_stopping and self._sent_again.is_held(job)
        except WorkerDied as lost:
            self._actions.append(Refuse(job.job_id, lost))
            return True

    def _begin_run(self, job: SubmittedJob, now: float) -> None:
        if job.flags & SENT_AGAIN and not self.is_stopping:
            graph = self.workflows.graph_of(job)
            try:
                self._sent_again.check_run(job, () if graph is None else graph.nodes)
            except WorkerDied as lost:
                self._actions.append(Refuse(job.job_id, lost))
                return
        self.runs.submit(job, now)

    def holds(self, job_id: bytes) -> bool:
        """Is it queued or with a worker?"""
        return job_id in self._jobs

    def places(self, model: str, version: str | None) -> int:
        """How many jobs of a version there can be at once; 0 for an unknown one."""
        try:
            pool = self.registry.find(model, version).pool
        except StokerError:
            return 0
        return pool.queue.capacity + len(pool.workers) * pool.policy.max_size

    def _unpark(self, now: float) -> None:
        """Queue what need not wait any longer for a worker to come back."""
        parked = self._inheritance.parked
        for job_id, job in list(parked.items()):
            del parked[job_id]
            self.submit(job, now)

    def dispatch(self, now: float) -> None:
        """Send what should go, after a burst of submits."""
        if self._heard:
            self.runs.advance(now)
        touched, self._touched = self._touched, {}
        for pool in touched:
            self._dispatch(pool, now)
            if pool.turns_full():
                is_default = self.registry.is_default(pool.model, pool.version)
                pool.announce_full(now, is_default=is_default)

    def _dispatch(self, pool: JobPool, now: float) -> None:
        pool.dispatch(now)
        if pool.due_at is not None:
            self._due[pool] = None
        else:
            self._due.pop(pool, None)

    def _next_batch_id(self) -> int:
        self._batch_id += 1
        return self._batch_id

    def touch(self, pool: JobPool) -> None:
        """It has something to send, perhaps, at the next dispatch."""
        self._touched[pool] = None

    def forget(self, pool: JobPool) -> None:
        """Its version is gone."""
        self._due.pop(pool, None)

    def cancel(self, job_id: bytes, now: float) -> None:
        """The client left.  Unknown ids have ended already."""
        job = self._jobs.get(job_id)
        if job is not None and job.pool is not None:
            job.pool.cancel(job)
            # The last suspect may have gone: what it held up may go ahead now.
            self._touched[job.pool] = None
        elif job is None and not self.runs.cancel(job_id, now):
            self._inheritance.parked.pop(job_id, None)

    def forget_frontend(self, frontend_id: bytes, now: float) -> None:
        """A frontend process is gone and its clients with it."""
        self._inheritance.forget_frontend(frontend_id)
        self.runs.forget_frontend(frontend_id, now)
        for job_id in [j for j in self._jobs if j[:FRONTEND_ID_BYTES] == frontend_id]:
            self.cancel(job_id, now)

    # -- workers --------------------------------------------------------------
    # What a worker said may still be on the way when it is gone; that is dropped.

    def worker_spawned(self, worker_id: int, pid: int) -> None:
        self._workers[worker_id][1].pid = pid

    def worker_said_hello(self, worker_id: int, now: float) -> None:
        entry = self._workers.get(worker_id)
        if entry is None:
            return
        served, worker = entry
        served.crew.hello(worker, now)

    def worker_came_back(
        self,
        worker_id: int,
        replies: list[Reply],
        now: float,
        sequences: Sequence[KnownSequence] = (),
    ) -> None:
        """A worker of our predecessor's is here.

        Args:
            replies: What it has answered lately.
            sequences: Those that live in it.
        """
        entry = self._workers.get(worker_id)
        if entry is None:
            return
        served, worker = entry
        self._inheritance.take(replies, now)
        for reply in replies:
            for frontend_id, frame in reply.groups:
                # Runs of workflows died with our predecessor; they are begun anew.
                if frontend_id[0] != CALL_MARK:
                    self._actions.append(Forward(frontend_id, frame))
        served.pool.take_back(worker, sequences, now)
        served.crew.came_back(worker, now)
        self._unpark(now)
        self._dispatch(served.pool, now)
        self.versions.settle(served, now)

    def worker_loaded(self, worker_id: int, now: float, flaw: str = "") -> None:
        """Its handler is ready, whatever it complained of while it started."""
        entry = self._workers.get(worker_id)
        if entry is None:
            return
        served, worker = entry
        served.crew.loaded(worker, now, flaw)
        self._dispatch(served.pool, now)
        self.versions.settle(served, now)

    def worker_cannot_load(self, worker_id: int, failure: Failure, now: float) -> None:
        """It will not even be started, for this reason; its end is told next."""
        entry = self._workers.get(worker_id)
        if entry is not None:
            served, worker = entry
            served.crew.refuse(worker, failure)

    def wants_workers(self, spec: VersionSpec) -> bool:
        """Whether a version has, or should have, any."""
        return any(served.spec is spec and bool(served.crew.slots) for served in self.versions)

    def worker_load_failed(self, worker_id: int, failure: Failure, now: float) -> None:
        entry = self._workers.get(worker_id)
        if entry is None:
            return
        served, worker = entry
        served.crew.load_failed(worker, failure, now)
        self.versions.settle(served, now)

    def worker_replied(self, worker_id: int, replies: list[Reply], now: float) -> None:
        """Raises ProtocolError when the worker must be dropped (`worker_lied`)."""
        entry = self._workers.get(worker_id)
        if entry is None:
            return
        served, worker = entry
        pool = served.pool
        pool.take_replies(worker, replies, now)
        if len(pool.queue):
            self._dispatch(pool, now)
            for_s = pool.gathering_s(worker)
            if for_s:
                self._actions.append(LetGather(worker_id, for_s))
        elif served.is_leaving:
            self.versions.settle(served, now)

    def worker_ended_sequences(self, worker_id: int, names: Sequence[str], now: float) -> None:
        """Its handler has ended them.  Raises ProtocolError where there can be none."""
        entry = self._workers.get(worker_id)
        if entry is not None:
            served, worker = entry
            served.pool.end_of(worker, names)

    def worker_lied(self, worker_id: int, now: float, reason: str) -> None:
        """A worker broke the protocol: it is killed and replaced."""
        entry = self._workers.get(worker_id)
        if entry is None:
            return
        served, worker = entry
        served.note("error", "worker broke the protocol", worker=worker.slot, reason=reason)
        served.crew.ladder.kill(worker, "broke the protocol", now)

    def worker_out_of_reach(self, worker_id: int, now: float) -> None:
        """A message could not be delivered to it."""
        entry = self._workers.get(worker_id)
        if entry is not None:
            entry[0].crew.ladder.out_of_reach(entry[1], now)

    def worker_measured(self, worker_id: int, memory_bytes: int, now: float) -> None:
        """What it holds in memory just now; of interest where a version limits that."""
        entry = self._workers.get(worker_id)
        if entry is not None:
            entry[0].crew.measured(entry[1], memory_bytes, now)

    def measured_workers(self) -> list[Worker]:
        """Those that want to be measured."""
        return [
            worker
            for served, worker in self._workers.values()
            if worker.pid > 0
            and (served.spec.limits.are_of_memory or served.autoscaler is not None)
        ]

    def worker_exited(self, worker_id: int, how: Exit, now: float) -> None:
        """The process is gone; also when it could not be started at all."""
        served, worker = self._workers.pop(worker_id)
        served.crew.exited(worker, how, now)
        self._unpark(now)
        self.versions.adopt_workers(served)
        self.versions.settle(served, now)
        if len(served.pool.queue):
            self._dispatch(served.pool, now)

    def worker(self, worker_id: int) -> Worker | None:
        entry = self._workers.get(worker_id)
        return None if entry is None else entry[1]

    def crews(self) -> dict[VersionKey, tuple[list[int], dict[int, int]]]:
        """Of every version with workers: all slots, and the pids of those with a process."""
        found = {}
        for served in self.versions:
            slots = served.crew.slots
            pids = {
                slot.number: slot.worker.pid
                for slot in slots
                if slot.worker is not None and slot.worker.pid > 0
            }
            if pids:
                found[served.spec.key] = [slot.number for slot in slots], pids
        return found

    def slots_of(self, worker_id: int) -> list[int]:
        """Of its whole version."""
        return [slot.number for slot in self._workers[worker_id][0].crew.slots]

    def spec_of(self, worker_id: int) -> VersionSpec | None:
        entry = self._workers.get(worker_id)
        return None if entry is None else entry[0].spec

    # -- time -----------------------------------------------------------------

    def next_due(self) -> float:
        """When `tick` should be called at the latest."""
        due_at = self._swept_at + SWEEP_S
        for pool in self._due:
            if pool.due_at is not None and pool.due_at < due_at:
                due_at = pool.due_at
        return due_at

    def tick(self, now: float) -> None:
        """Batches whose delay has passed, and every SWEEP_S all deadlines."""
        for pool in list(self._due):
            if pool.due_at is None or pool.due_at <= now:
                self._dispatch(pool, now)
        if now >= self._swept_at + SWEEP_S:  # the very sum that next_due announces
            self._swept_at = now
            self._sweep(now)

    def _sweep(self, now: float) -> None:
        for served in list(self.versions):
            if not served.crew.slots and not served.waiters and not len(served.pool.queue):
                continue  # ten thousand registered models without workers cost nothing
            served.pool.expire(now)
            if len(served.pool.queue):
                self._touched[served.pool] = None
            if served.pool.convictions:
                served.pool.recovery.release(now)
            served.crew.sweep(now)
            if served.autoscaler is not None and not self.is_stopping:
                self.versions.autoscale(served, now)
            self.versions.adopt_workers(served)
            served.sweep_waiters(now)
            self.versions.settle(served, now)
        self._inheritance.sweep(now)
        self._unpark(now)
        self.runs.sweep(now)
        if self.is_stopping:
            self._continue_stop(now)

    # -- stopping -------------------------------------------------------------

    def stop(self, now: float, drain_s: float) -> None:
        """Accept nothing new, finish what is here, let every worker leave."""
        if self._stop_at is None:
            self.is_stopping = True
            self._stop_at = now + drain_s
            self._continue_stop(now)

    def _continue_stop(self, now: float) -> None:
        assert self._stop_at is not None
        is_late = now >= self._stop_at
        needed = self.runs.models_in_use()
        for served in list(self.registry):
            if not is_late and served.spec.model in needed:
                continue
            if is_late or not len(served.pool.queue) or not served.crew.has_hope:
                self.versions.remove(served, now)
        if is_late:
            for served in self.versions.leaving:
                served.kill_all(now)


def _has_room(served: Served) -> bool:
    crew = served.crew
    return (crew.has_hope or crew.is_asleep) and served.pool.queue.room > 0
