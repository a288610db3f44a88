"""The bounded queue of one version: first in, first out.

Cancelling is as cheap as taking (both are one look-up), because clients that
leave in a storm must not cost more than clients that stay.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from stoker.supervisor.jobs import Job


class JobQueue:
    """Waiting jobs of one version, oldest first.

    Jobs that were sent ahead to a worker but not started (`ahead`) count
    against the bound as well: when they are given back there is room for
    them, so the queue never holds more than `capacity`.  `loners` counts the
    waiting jobs that travel alone.
    """

    __slots__ = ("_jobs", "ahead", "capacity", "loners")

    def __init__(self, capacity: int) -> None:
        self._jobs: OrderedDict[bytes, Job] = OrderedDict()
        self.capacity = capacity
        self.ahead = 0
        self.loners = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    @property
    def pending(self) -> int:
        """Jobs nobody has started: waiting here, or sent ahead."""
        return len(self._jobs) + self.ahead

    @property
    def room(self) -> int:
        """Jobs that may still come; not above 0 when it is full."""
        return self.capacity - len(self._jobs) - self.ahead

    def put(self, job: Job) -> None:
        self._jobs[job.job_id] = job
        self.loners += job.is_loner

    def put_back(self, jobs: Iterable[Job]) -> None:
        """Return jobs that were sent but not started, to where they were in the order."""
        returned = sorted(jobs, key=_by_arrival)
        if not returned:
            return
        oldest = self.oldest()
        for job in reversed(returned):
            self._jobs[job.job_id] = job
            self._jobs.move_to_end(job.job_id, last=False)
            self.loners += job.is_loner
        if oldest is not None and oldest.sequence < returned[-1].sequence:
            # Another worker gave back older ones before; only then is a sort due.
            self._jobs = OrderedDict(
                (job.job_id, job) for job in sorted(self._jobs.values(), key=_by_arrival)
            )

    def oldest(self) -> Job | None:
        for job in self._jobs.values():
            return job
        return None

    def take(self) -> Job:
        """Remove and return the oldest job; KeyError when empty."""
        job = self._jobs.popitem(last=False)[1]
        self.loners -= job.is_loner
        return job

    def remove(self, job_id: bytes) -> Job | None:
        job = self._jobs.pop(job_id, None)
        if job is not None:
            self.loners -= job.is_loner
        return job

    def take_expired(self, now: float) -> list[Job]:
        """Remove and return every job whose deadline has passed."""
        expired = [job for job in self._jobs.values() if job.deadline <= now]
        for job in expired:
            self.remove(job.job_id)
        return expired

    def take_all(self) -> list[Job]:
        jobs = list(self._jobs.values())
        self._jobs.clear()
        self.loners = 0
        return jobs


def _by_arrival(job: Job) -> int:
    return job.sequence
