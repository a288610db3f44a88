"""The jobs of one version, and the workers that take them.

A pool admits, queues, batches, hands out and takes back; it neither starts
nor stops workers (`crews.py` does).  Every job it admits ends exactly once:
by a worker's answer, or by a `Refuse` of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from stoker.errors import (
    BadHandlerResult,
    DeadlineExceeded,
    NoWorker,
    ProtocolError,
    QueueFull,
    StokerError,
)
from stoker.supervisor.actions import Announce, Forward, Refuse, SendBatch, SendDrop
from stoker.supervisor.batching import BatchPolicy, is_full, ready_at, take_batch
from stoker.supervisor.commons import Commons
from stoker.supervisor.dispatch import MIN_GATHERED_S, choose_busy, gathering_s
from stoker.supervisor.jobs import Job, JobEvent, JobState
from stoker.supervisor.pace import place_every_s, retry_after_s
from stoker.supervisor.quarantine import Loss
from stoker.supervisor.queues import JobQueue
from stoker.supervisor.recovery import Lost, Recovery, Told
from stoker.supervisor.sequences import KnownSequence
from stoker.supervisor.tally import Tally
from stoker.supervisor.versions import VersionSpec
from stoker.supervisor.workers import Batch, Worker, WorkerEvent, WorkerState
from stoker.wire.frames import CALL_MARK, AnswerFrame, FullQueue, Reply


class Pool:
    """Where a version's jobs wait, and who works on them."""

    def __init__(self, spec: VersionSpec, commons: Commons) -> None:
        self.model = spec.model
        self.version = spec.version
        self.policy: BatchPolicy = spec.batch
        self.queue = JobQueue(spec.queue_capacity)
        self.workers: dict[int, Worker] = {}
        self.recovery = Recovery(spec, self.queue, commons.actions, self._fail, commons.contents)
        #: While there are any, a request's content matters.
        self.convictions = self.recovery.quarantine.convictions
        #: When an idle worker should get the incomplete batch that is queued.
        self.due_at: float | None = None
        #: Bytes of the payloads of its jobs that have not ended.
        self.payload_bytes = 0
        self.tally = Tally()
        #: The frontends know that the queue was full; not much has moved since.
        self.is_announced = False
        # Taken out here: they are asked for with every job.
        self._jobs = commons.jobs
        self._actions = commons.actions
        self._heard = commons.heard
        self._next_batch_id = commons.next_batch_id
        self._budget = commons.budget
        self._idle: dict[int, Worker] = {}
        self.uses_job_tickets = spec.uses_job_tickets

    # -- jobs -----------------------------------------------------------------

    @property
    def lacks_ticket(self) -> bool:
        """Where job tickets count: no worker is left that waits for another job (8.6)."""
        return len(self.queue) >= len(self._idle)

    def submit(self, job: Job) -> None:
        """Queue a job; the caller has seen that there is room, and taken it in the budget."""
        job.pool = self
        self.payload_bytes += len(job.payload)
        self._jobs[job.job_id] = job
        self.queue.put(job)

    def cancel(self, job: Job) -> None:
        """The client left: a queued job goes, a sent one is marked and its worker told."""
        if job.state is JobState.QUEUED:
            self.queue.remove(job.job_id)
        else:
            self._actions.append(SendDrop(job.worker_id, [job.job_id]))
            for batch in islice(self.workers[job.worker_id].in_hand, 1, None):
                if job in batch.jobs:
                    batch.ended += 1
                    self.queue.ahead -= 1
        self._end(job, JobEvent.CANCEL)

    def expire(self, now: float) -> None:
        """End jobs whose deadline has passed, wherever they wait.

        What a worker works on goes on, unless the deadline is the client's own;
        then its handler is told.
        """
        for job in self.queue.take_expired(now):
            self._expire(job)
        for worker in self.workers.values():
            if worker.in_hand:
                self._expire_in_hand(worker, now)

    def _expire_in_hand(self, worker: Worker, now: float) -> None:
        late: list[Job] = []
        is_begun = True
        for batch in worker.in_hand:
            for job in batch.jobs:
                if job.deadline > now or job.has_ended:
                    continue
                if not is_begun:
                    batch.ended += 1
                    self.queue.ahead -= 1
                elif not job.ends_in_hand or batch.has_sent_pieces:
                    # A stream that has begun is wanted to its end.
                    continue
                late.append(job)
            is_begun = False
        if late:
            self._actions.append(SendDrop(worker.worker_id, [job.job_id for job in late]))
            for job in late:
                self._expire(job)

    def recall(self, error: Callable[[], StokerError]) -> None:
        """End with an error what was sent ahead and, as far as we know, is not begun."""
        for worker in self.workers.values():
            recalled: list[Job] = []
            for batch in islice(worker.in_hand, 1, None):
                recalled += [job for job in batch.jobs if not job.has_ended]
                self.queue.ahead -= batch.waiting
                batch.ended = len(batch.jobs)
            if recalled:
                self._actions.append(SendDrop(worker.worker_id, [job.job_id for job in recalled]))
                for job in recalled:
                    self._fail(job, error())

    def flush(self, error: Callable[[], StokerError]) -> None:
        """End every queued job with an error; sent ones are their workers' business."""
        for job in self.queue.take_all():
            self._fail(job, error())
        self.due_at = None

    # -- workers --------------------------------------------------------------

    def join(self, worker: Worker) -> None:
        """A worker has loaded and takes jobs from the next dispatch on."""
        self.workers[worker.worker_id] = worker
        self._idle[worker.worker_id] = worker

    def retire(self, worker: Worker) -> None:
        """Give the worker no more; it keeps what it holds."""
        self._idle.pop(worker.worker_id, None)

    def stall(self, worker: Worker, told: Told, now: float) -> int:
        """Its batch takes too long.  Returns the number of jobs that failed."""
        return self.recovery.stall(worker, told, now)

    def lose(self, worker: Worker, loss: Loss, told: Told, cause: str, now: float) -> Lost:
        """It is gone, for the reason `cause`."""
        self.workers.pop(worker.worker_id, None)
        self._idle.pop(worker.worker_id, None)
        return self.recovery.lose(worker, loss, told, cause, now)

    # -- what the autoscaler asks ------------------------------------------------

    @property
    def most_at_once(self) -> int:
        """Requests that one worker works on together."""
        return self.policy.max_size

    @property
    def delay_s(self) -> float:
        """What a request may wait for company, which no worker can help."""
        return self.policy.delay_s if self.policy.max_size > 1 else 0.0

    def busy_s(self, now: float) -> float:
        """Time of workers that requests took, those in hand included."""
        running_s = sum(now - each.batch_since for each in self.workers.values() if each.in_hand)
        return self.tally.handling.total + running_s

    # -- sequences, of which most versions have none (`sequence_pool.py`) --------

    #: Workers that leave still take requests, of those whose sequences live there.
    serves_on = False

    def resize(self, min_workers: int, max_workers: int) -> None:
        """So many workers are wanted from now on."""

    def winds_down(self, worker: Worker) -> bool:
        """Must a worker that should leave be kept until its sequences have ended?"""
        return False

    def is_winding_down(self, worker: Worker) -> bool:
        return False

    def has_wound_down(self, worker: Worker) -> bool:
        return True

    def end_sequences(self) -> None:
        """The version leaves, and waits for no sequence."""

    def expect(self, worker: Worker) -> None:
        """A predecessor's, which will say what lives in it."""

    def doubt(self) -> None:
        """A worker of a predecessor's is gone without a word."""

    def take_back(self, worker: Worker, known: Sequence[KnownSequence], now: float) -> None:
        """These live in a worker that has come back."""

    def end_of(self, worker: Worker, names: Sequence[str]) -> None:
        """A worker's handler has ended these.  Raises ProtocolError where there are none."""
        raise ProtocolError("its version has no sequences")

    def sequence_count(self, worker_id: int) -> int:
        """How many live in a worker."""
        return 0

    # -- batches out, answers in -----------------------------------------------

    def dispatch(self, now: float) -> None:
        """Send every batch that should go now; remember when the next one is due."""
        queue, policy = self.queue, self.policy
        self.due_at = None
        while len(queue):
            if self._idle:
                due_at = ready_at(queue, policy)
                if due_at is not None and due_at > now:
                    self.due_at = due_at
                    return
                worker = next(reversed(self._idle.values()))
            elif not self.recovery.suspects and is_full(queue, policy):
                waiting = len(queue) // policy.max_size
                busy = choose_busy(self.workers.values(), len(self.workers), waiting)
                if busy is None:
                    return
                worker = busy
            else:
                return
            taken = take_batch(queue, policy, now)
            if taken.expired:
                for job in taken.expired:
                    self._expire(job)
                # Judge again: what is left may be worth waiting for.
                queue.put_back(taken.jobs)
            else:
                self._send(worker, taken.jobs, now)

    def _send(self, worker: Worker, jobs: list[Job], now: float) -> None:
        batch = Batch(self._next_batch_id(), jobs)
        for job in jobs:
            job.move(JobEvent.SEND)
            job.worker_id = worker.worker_id
        if worker.in_hand:
            self.queue.ahead += len(jobs)
        else:
            worker.quiet_since = now
            worker.batch_since = now
            worker.includes_trip = True
        worker.in_hand.append(batch)
        if worker.state is WorkerState.READY:
            del self._idle[worker.worker_id]
        worker.move(WorkerEvent.SENT)
        self._actions.append(SendBatch(worker.worker_id, batch.batch_id, jobs))

    def gathering_s(self, worker: Worker) -> float:
        """How long to leave a worker alone now (`dispatch.gathering_s`)."""
        return gathering_s(worker)

    def take_replies(self, worker: Worker, replies: list[Reply], now: float) -> None:
        """What a worker says at once.  It did one after the other, and each took its share.

        Raises:
            ProtocolError: As `take_reply`.
        """
        if len(replies) == 1:
            self.take_reply(worker, replies[0], now)
            return
        share_s = (now - worker.batch_since) / (len(replies) or 1)
        if share_s < MIN_GATHERED_S:
            share_s = 0.0  # it gathered them itself, and waited for most of the time
        for behind, reply in zip(range(len(replies) - 1, -1, -1), replies, strict=True):
            self.take_reply(worker, reply, now - behind * share_s)

    def take_reply(self, worker: Worker, reply: Reply, now: float) -> None:
        """One batch's progress.

        Raises:
            ProtocolError: The worker answers a batch it was not given, or out
                of order; it cannot be trusted with anything more.
        """
        if not worker.in_hand or worker.in_hand[0].batch_id != reply.batch_id:
            raise ProtocolError("a reply for a batch that the worker does not work on")
        worker.quiet_since = now
        if worker.stalled_at is not None:
            if reply.is_last:
                self._finish_batch(worker, now)
            return
        for job_id in reply.ended:
            job = self._jobs.get(job_id)
            # Cancelled jobs are forgotten already; another worker's are not this one's to end.
            if job is not None and job.worker_id == worker.worker_id:
                self._end(job, JobEvent.COMPLETE)
        for frontend_id, frame in reply.groups:
            if frontend_id[0] != CALL_MARK:
                self._actions.append(Forward(frontend_id, frame))
            else:
                self._hear(worker.in_hand[0], frontend_id, frame)
        if reply.is_last:
            self._finish_batch(worker, now)
        elif reply.groups:
            worker.in_hand[0].has_sent_pieces = True

    def _hear(self, batch: Batch, frontend_id: bytes, frame: AnswerFrame) -> None:
        """A node's answer, of a job that this worker was given.  Raises ProtocolError."""
        if not isinstance(frame, bytes):
            raise ProtocolError("a node's answer is never lent")
        for job in batch.jobs:
            if job.job_id.startswith(frontend_id):
                self._heard.append((job.job_id, frame))

    def _finish_batch(self, worker: Worker, now: float) -> None:
        batch = worker.in_hand.popleft()
        worker.jobs_done += len(batch.jobs)
        if worker.stalled_at is not None:
            self.recovery.resume(worker)
            self.recovery.take_back(batch, now)
        for job in batch.jobs:
            if job.state is JobState.SENT:
                self._fail(job, BadHandlerResult("The worker left the request unanswered."))
        self.tally.note_batch(batch.jobs, worker.batch_since, now)
        took_s = now - worker.batch_since
        if worker.includes_trip:
            worker.includes_trip = False
            worker.bound_service_time(took_s)
        else:
            worker.note_service_time(took_s)
        worker.batch_since = now
        if worker.in_hand:
            begun = worker.in_hand[0]
            self.queue.ahead -= len(begun.jobs) - begun.ended
        elif worker.state is WorkerState.BUSY:
            worker.move(WorkerEvent.ANSWERED)
            self._idle[worker.worker_id] = worker
        self._note_room()

    # -- ends -----------------------------------------------------------------

    def turns_full(self) -> bool:
        """Is there no room, which the frontends do not know?"""
        if self.queue.room <= 0:
            return not self.is_announced
        self._note_room()
        return False

    def _note_room(self) -> None:
        if self.is_announced and self.queue.room * 2 >= self.queue.capacity:
            self.is_announced = False

    def announce_full(self, now: float, *, is_default: bool) -> None:
        """Once, until the queue has been half empty again."""
        self.is_announced = True
        every_s, retry_after_s = self._pace(now)
        self._actions.append(
            Announce(FullQueue(self.model, self.version, is_default, every_s, retry_after_s))
        )

    def queue_full(self, now: float) -> QueueFull:
        every_s, retry_after_s = self._pace(now)
        return QueueFull(
            f"The queue of model {self.model} is full; try again later.",
            model=self.model,
            version=self.version,
            capacity=self.queue.capacity,
            place_every_s=every_s,
            retry_after_s=retry_after_s,
        )

    def _pace(self, now: float) -> tuple[float, int]:
        every_s = place_every_s(self.workers.values(), self.policy.max_size, now)
        return every_s, retry_after_s(self.queue.pending, every_s)

    def no_worker(self) -> NoWorker:
        return NoWorker(
            f"Model {self.model} has no worker; scale it up.",
            model=self.model,
            version=self.version,
        )

    def _end(self, job: Job, event: JobEvent) -> None:
        # The payload stays: the batch with it may be sent only at the end of the turn.
        job.move(event)
        self._jobs.pop(job.job_id, None)
        size = len(job.payload)
        self.payload_bytes -= size
        self._budget.give_back(size)
        if job.is_suspect:
            self.recovery.suspects -= 1

    def _fail(self, job: Job, error: StokerError) -> None:
        self._end(job, JobEvent.FAIL)
        self._refuse(job, error)

    def _expire(self, job: Job) -> None:
        self._end(job, JobEvent.EXPIRE)
        late = DeadlineExceeded(
            "The request waited longer than its deadline allows.", model=self.model
        )
        self._refuse(job, late)

    def _refuse(self, job: Job, error: StokerError) -> None:
        if job.attempts:
            error.details["attempts"] = job.attempts
        if job.job_id[0] == CALL_MARK:
            self._heard.append((job.job_id, error))
            return
        self._actions.append(Refuse(job.job_id, error))
