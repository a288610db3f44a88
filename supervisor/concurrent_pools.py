"""The jobs of a version whose workers work on many at once.

Two kinds of handlers do: those of continuous batching, which get at every
step whoever is there, and asynchronous ones.  Jobs join and leave a worker's
hand one by one:

    queue --> [job  job  job  ...] --> answered, in any order
               at most `jobs_at_once`

To the wire every job is a batch of its own, and all that a worker holds counts
as begun.  So nothing is sent ahead, and nobody waits for company: who comes
later joins what runs.

Two kinds of jobs want a worker that holds nothing: one that travels alone
(`Job.is_loner`), to its end; and one under which a worker died (`is_suspect`),
until it has survived a step.  What runs may go on for ever, so such a job
holds up those behind it for PATIENCE_S at most.  Then a suspect joins as others
do, and a loner is passed by until there is an empty worker, or its deadline.

Source: contracts/torchserve.md 8.7 and 8.8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from stoker.errors import BadHandlerResult, ProtocolError, StokerError
from stoker.supervisor.actions import Forward, SendBatch, SendDrop
from stoker.supervisor.commons import Commons
from stoker.supervisor.jobs import Job, JobEvent, JobState
from stoker.supervisor.pace import place_every_s, retry_after_s
from stoker.supervisor.pools import Pool
from stoker.supervisor.quarantine import Loss
from stoker.supervisor.recovery import Lost, Told
from stoker.supervisor.versions import VersionSpec
from stoker.supervisor.workers import Batch, Worker, WorkerEvent, WorkerState
from stoker.wire.frames import CALL_MARK, Reply

#: How long what came later waits for a job that wants a worker to itself.
PATIENCE_S: Final = 2.0


@dataclass(slots=True, eq=False)
class Run(Batch):
    """One job in a worker's hand, among others.

    Attributes:
        is_proven: Its worker has lived through a step with it.
    """

    begun_at: float = 0.0
    is_proven: bool = False

    @property
    def wants_to_be_alone(self) -> bool:
        job = self.jobs[0]
        return job.is_loner or (job.is_suspect and not self.is_proven)


def choose_empty(workers: Iterable[Worker]) -> Worker | None:
    """A worker that holds nothing and takes jobs."""
    for worker in workers:
        if worker.state is WorkerState.READY:
            return worker
    return None


def choose_roomiest(workers: Iterable[Worker], most_jobs: int) -> Worker | None:
    """The worker that may take one more job and holds the fewest; None if there is none."""
    best: Worker | None = None
    for worker in workers:
        if worker.state is WorkerState.READY:
            return worker
        held = len(worker.in_hand)
        if worker.state is not WorkerState.BUSY or held >= most_jobs:
            continue
        if best is not None and held >= len(best.in_hand):
            continue
        latest = worker.in_hand[-1]
        # Nobody joins after one that wants to be alone, so it is always the latest.
        if not (isinstance(latest, Run) and latest.wants_to_be_alone):
            best = worker
    return best


class ConcurrentPool(Pool):
    """As `Pool`, for workers that hold up to `spec.jobs_at_once` jobs each."""

    def __init__(self, spec: VersionSpec, commons: Commons) -> None:
        super().__init__(spec, commons)
        self._most_jobs = spec.jobs_at_once
        #: The job at the head of the queue that finds no empty worker, and since when.
        self._blocked: Job | None = None
        self._blocked_since = 0.0
        #: Time of workers that held something; and since when those that hold something do.
        self._busy_s = 0.0
        self._busy_since: dict[int, float] = {}

    # -- what the autoscaler asks ------------------------------------------------

    @property
    def most_at_once(self) -> int:
        return self._most_jobs

    @property
    def delay_s(self) -> float:
        return 0.0

    def busy_s(self, now: float) -> float:
        return self._busy_s + sum(now - since for since in self._busy_since.values())

    def _note_empty(self, worker: Worker, now: float) -> None:
        since = self._busy_since.pop(worker.worker_id, None)
        if since is not None:
            self._busy_s += now - since

    def lose(self, worker: Worker, loss: Loss, told: Told, cause: str, now: float) -> Lost:
        self._note_empty(worker, now)
        return super().lose(worker, loss, told, cause, now)

    # -- jobs -----------------------------------------------------------------

    @property
    def lacks_ticket(self) -> bool:
        takers = (WorkerState.READY, WorkerState.BUSY)
        held = [len(each.in_hand) for each in self.workers.values() if each.state in takers]
        return len(self.queue) >= len(held) * self._most_jobs - sum(held)

    def cancel(self, job: Job) -> None:
        """A job in a hand takes its place there until its worker has let it go."""
        if job.state is JobState.QUEUED:
            self.queue.remove(job.job_id)
        else:
            self._actions.append(SendDrop(job.worker_id, [job.job_id]))
        self._end(job, JobEvent.CANCEL)

    def _expire_in_hand(self, worker: Worker, now: float) -> None:
        late = [
            job
            for run in worker.in_hand
            for job in run.jobs
            if job.deadline <= now
            and job.ends_in_hand
            and not job.has_ended
            and not run.has_sent_pieces  # a stream that has begun is wanted to its end
        ]
        if late:
            self._actions.append(SendDrop(worker.worker_id, [job.job_id for job in late]))
            for job in late:
                self._expire(job)

    def recall(self, error: Callable[[], StokerError]) -> None:
        """Nothing is sent ahead."""

    # -- jobs out, answers in ---------------------------------------------------

    def dispatch(self, now: float) -> None:
        """Give what waits to whoever has room."""
        queue, workers = self.queue, self.workers.values()
        self.due_at = None
        while (oldest := queue.oldest()) is not None:
            if oldest.deadline <= now:
                self._expire(queue.take())
                continue
            if not (oldest.is_loner or oldest.is_suspect):
                worker = choose_roomiest(workers, self._most_jobs)
            elif (worker := choose_empty(workers)) is None:
                if not self._is_patience_over(oldest, now):
                    return
                if oldest.is_loner:
                    self._pass_by(now)
                    return
                worker = choose_roomiest(workers, self._most_jobs)
            if worker is None:
                return
            self._give(worker, queue.take(), now)

    def _is_patience_over(self, job: Job, now: float) -> bool:
        if self._blocked is not job:
            self._blocked, self._blocked_since = job, now
        until = self._blocked_since + PATIENCE_S
        if now < until:
            self.due_at = until
            return False
        return True

    def _pass_by(self, now: float) -> None:
        """Let those go who do not mind company."""
        for job in [job for job in self.queue if not (job.is_loner or job.is_suspect)]:
            worker = choose_roomiest(self.workers.values(), self._most_jobs)
            if worker is None:
                return
            self.queue.remove(job.job_id)
            if job.deadline <= now:
                self._expire(job)
            else:
                self._give(worker, job, now)

    def _give(self, worker: Worker, job: Job, now: float) -> None:
        run = Run(self._next_batch_id(), [job], begun_at=now)
        job.move(JobEvent.SEND)
        job.worker_id = worker.worker_id
        if not worker.in_hand:
            worker.quiet_since = worker.batch_since = now
            self._busy_since[worker.worker_id] = now
        worker.in_hand.append(run)
        if worker.state is WorkerState.READY:
            del self._idle[worker.worker_id]
        worker.move(WorkerEvent.SENT)
        self._actions.append(SendBatch(worker.worker_id, run.batch_id, run.jobs))

    def gathering_s(self, worker: Worker) -> float:
        """What was sent is begun, and every answer makes room for another one."""
        return 0.0

    def take_replies(self, worker: Worker, replies: list[Reply], now: float) -> None:
        """What ended together ended now."""
        for reply in replies:
            self.take_reply(worker, reply, now)

    def take_reply(self, worker: Worker, reply: Reply, now: float) -> None:
        """One job's progress.

        A reply that neither ends nor answers anything says that the handler is
        alive (`contracts/torchserve.md` 8.8 knows no other limit).

        Raises:
            ProtocolError: The worker answers what it was not given.
        """
        run = self._find(worker, reply.batch_id)
        worker.quiet_since = now
        if worker.stalled_at is not None:
            if reply.is_last:
                worker.in_hand.remove(run)
                self.recovery.take_back(run, now)
                if not worker.in_hand:
                    self.recovery.resume(worker)
                    self._rest(worker, now)
            return
        (job,) = run.jobs
        run.is_proven = True
        if job.job_id in reply.ended and not job.has_ended:
            self._end(job, JobEvent.COMPLETE)
        for frontend_id, frame in reply.groups:
            if frontend_id[0] != CALL_MARK:
                self._actions.append(Forward(frontend_id, frame))
            else:
                self._hear(run, frontend_id, frame)
        if reply.is_last:
            self._finish(worker, run, now)
        elif reply.groups:
            run.has_sent_pieces = True

    def _find(self, worker: Worker, batch_id: int) -> Run:
        for run in worker.in_hand:
            if run.batch_id == batch_id:
                assert isinstance(run, Run)
                return run
        raise ProtocolError("a reply for a request that the worker does not work on")

    def _finish(self, worker: Worker, run: Run, now: float) -> None:
        size = len(worker.in_hand)
        worker.in_hand.remove(run)
        worker.jobs_done += 1
        for job in run.jobs:
            if job.state is JobState.SENT:
                self._fail(job, BadHandlerResult("The worker left the request unanswered."))
        self.tally.note_batch(run.jobs, run.begun_at, now, size)
        worker.note_service_time(now - run.begun_at)
        if worker.in_hand:
            oldest = worker.in_hand[0]
            assert isinstance(oldest, Run)
            worker.batch_since = oldest.begun_at
        else:
            worker.batch_since = now
            self._rest(worker, now)
        self._note_room()

    def _rest(self, worker: Worker, now: float) -> None:
        self._note_empty(worker, now)
        if worker.state is WorkerState.BUSY:
            worker.move(WorkerEvent.ANSWERED)
            self._idle[worker.worker_id] = worker

    def _pace(self, now: float) -> tuple[float, int]:
        every_s = place_every_s(self.workers.values(), self._most_jobs, now)
        return every_s, retry_after_s(self.queue.pending, every_s)
