"""What becomes of jobs whose worker died or stalled, for one version.

`quarantine.py` has the rules; here they are applied: jobs go back to their
places in the queue, clients are told, and a request that kills workers is
kept out.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Final, NamedTuple

from stoker.errors import Quarantined, StokerError
from stoker.supervisor.actions import Action, Note, Retry, SendDrop
from stoker.supervisor.jobs import Job, JobEvent, JobState
from stoker.supervisor.quarantine import Contents, Conviction, Loss, Quarantine, Verdict, judge
from stoker.supervisor.queues import JobQueue
from stoker.supervisor.versions import VersionSpec
from stoker.supervisor.workers import Batch, Worker, WorkerEvent
from stoker.wire.frames import CALL_MARK

#: What a client is told, given the number of attempts.
Told = Callable[[int], StokerError]


class Lost(NamedTuple):
    """What became of the jobs that a lost worker held.

    Attributes:
        is_explained: One of them was found to be why it died.
    """

    again: int = 0
    failed: int = 0
    is_explained: bool = False


NOTHING_LOST: Final = Lost()


class Recovery:
    """The unlucky jobs of one version.

    Args:
        fail: Ends a job with an error.
        contents: Reads the requests that are suspected to kill workers.

    Attributes:
        suspects: Jobs that were in the hand of a worker that died, and have
            not ended; whoever ends one counts it off.
    """

    def __init__(
        self,
        spec: VersionSpec,
        queue: JobQueue,
        actions: list[Action],
        fail: Callable[[Job, StokerError], None],
        contents: Contents | None,
    ) -> None:
        self.suspects = 0
        self._works_at_once = spec.jobs_at_once > 0
        self.quarantine = Quarantine(spec.quarantine_s, contents)
        self._model = spec.model
        self._version = spec.version
        self._max_attempts = spec.max_attempts
        self._queue = queue
        self._actions = actions
        #: How often a job was given another try.
        self.retried = 0
        self._fail = fail

    # -- workers that take too long -----------------------------------------------

    def stall(self, worker: Worker, told: Told, now: float) -> int:
        """Tell who was alone, and ask the handler to give up.

        Whatever it still says of this batch is not heard: of a handler that
        stopped half-way nobody can tell whether its answer is whole.

        Returns:
            The number of jobs that failed.
        """
        begun = self._begun(worker)
        worker.stalled_at = now
        if worker.can(WorkerEvent.STALL):
            worker.move(WorkerEvent.STALL)
        told_ids = [job.job_id for batch in begun for job in batch.jobs]
        self._actions.append(SendDrop(worker.worker_id, told_ids))
        was_alone = len(told_ids) == 1
        failed = 0
        for batch in begun:
            for job in batch.jobs:
                if not job.has_ended:
                    job.attempts += 1
                    verdict = self._judge(batch, job, Loss.SILENT, was_alone=was_alone)
                    if verdict is not Verdict.AGAIN:
                        failed += 1
                        self._fail(job, told(job.attempts))
        return failed

    def resume(self, worker: Worker) -> None:
        """A handler has given up as it was told; its worker is as good as before."""
        worker.stalled_at = None
        if worker.can(WorkerEvent.RESUME):
            worker.move(WorkerEvent.RESUME)

    def take_back(self, batch: Batch, now: float) -> None:
        """What it had not answered when it was told to give up is tried again."""
        self._give_back([job for job in batch.jobs if not job.has_ended], [], now)

    def _begun(self, worker: Worker) -> list[Batch]:
        return list(worker.in_hand) if self._works_at_once else [worker.in_hand[0]]

    # -- workers that die ---------------------------------------------------------

    def lose(self, worker: Worker, loss: Loss, told: Told, cause: str, now: float) -> Lost:
        """What the worker had started is tried again or fails, the rest goes back.

        Args:
            cause: How it died, for whoever asks about a convicted request.
        """
        if not worker.in_hand:
            return NOTHING_LOST
        begun = self._begun(worker)
        was_alone = sum(len(batch.jobs) for batch in begun) == 1
        again: list[Job] = []
        convicted: list[Job] = []
        failed = 0
        for batch in begun:
            for job in batch.jobs:
                was_told = worker.stalled_at is not None and job.state is JobState.FAILED
                if job.has_ended and not was_told:
                    continue
                job.deaths += 1
                if worker.stalled_at is None:
                    job.attempts += 1
                verdict = self._judge(batch, job, loss, was_alone=was_alone)
                if verdict is Verdict.CONVICTED:
                    convicted.append(job)
                if was_told:
                    continue
                if verdict is Verdict.AGAIN:
                    again.append(job)
                else:
                    failed += 1
                    self._fail(job, told(job.attempts))
        waiting: list[Job] = []
        for ahead in islice(worker.in_hand, len(begun), None):
            self._queue.ahead -= ahead.waiting
            waiting += [job for job in ahead.jobs if not job.has_ended]
        worker.in_hand.clear()
        if loss in (Loss.CRASHED, Loss.SHOT):
            self._suspect(waiting)
        self._give_back(again, waiting, now)
        for job in convicted:
            self._convict(job, cause, now)
        return Lost(len(again), failed, bool(convicted))

    def _judge(self, batch: Batch, job: Job, loss: Loss, *, was_alone: bool) -> Verdict:
        return judge(
            job,
            loss,
            self._max_attempts,
            was_alone=was_alone,
            has_sent_pieces=batch.has_sent_pieces,
        )

    def _give_back(self, again: list[Job], waiting: list[Job], now: float) -> None:
        """Return jobs to their places in the queue; those of `again` travel alone from now on."""
        self._suspect(again)
        for job in again:
            # Where jobs join others, suspicion alone keeps them apart for a while.
            job.is_loner = job.is_loner or not self._works_at_once
            self.retried += 1
            if job.job_id[0] != CALL_MARK:
                self._actions.append(Retry(job.job_id, job.attempts))
        returned = again + waiting
        for job in returned:
            job.move(JobEvent.GIVE_BACK)
        self._queue.put_back(returned)
        self._keep_out(returned, now)

    def _suspect(self, jobs: list[Job]) -> None:
        for job in jobs:
            if not job.is_suspect:
                job.is_suspect = True
                self.suspects += 1

    # -- requests that kill ---------------------------------------------------------

    def check_content(self, job_id: bytes, payload: bytes, now: float) -> None:
        """Raises Quarantined if what a request says has killed workers lately."""
        conviction = self.quarantine.find(job_id, payload, now)
        if conviction is not None:
            if conviction.refused == 1:
                self._note(
                    "warning", "request is kept out", content=conviction.content.digest.hex()
                )
            raise self._quarantined(conviction)

    def _convict(self, job: Job, cause: str, now: float) -> None:
        """Remember what it says; who waits and says the same does not get to a worker."""
        conviction = self.quarantine.convict(job, cause, now)
        self._note(
            "warning",
            "request kills workers",
            likely=cause,
            attempts=job.attempts,
            content=None if conviction is None else conviction.content.digest.hex(),
            quarantined_s=0.0 if conviction is None else round(conviction.until - now, 3),
        )
        if conviction is not None:
            self._keep_out(list(self._queue), now)

    def _keep_out(self, waiting: list[Job], now: float) -> None:
        """Jobs that wait and say what has killed workers do not get to another one."""
        if not self.quarantine.convictions:
            return
        for job in waiting:
            conviction = self.quarantine.find(job.job_id, job.payload, now)
            if conviction is not None:
                self._queue.remove(job.job_id)
                self._fail(job, self._quarantined(conviction))

    def _quarantined(self, conviction: Conviction) -> Quarantined:
        return Quarantined(
            f"The same request has made {conviction.deaths} workers of model {self._model} die "
            f"({conviction.cause}); it is not let in again for a while.",
            model=self._model,
            version=self._version,
            deaths=conviction.deaths,
            likely=conviction.cause,
        )

    def release(self, now: float | None) -> None:
        """Let in again what has been kept out long enough; with None, everything."""
        quarantine = self.quarantine
        for conviction in quarantine.clear() if now is None else quarantine.expire(now):
            self._note(
                "info",
                "request may come again",
                content=conviction.content.digest.hex(),
                refused=conviction.refused,
            )

    def _note(self, level: str, event: str, **facts: object) -> None:
        facts = {"model": self._model, "version": self._version, **facts}
        self._actions.append(Note(level, event, facts))
