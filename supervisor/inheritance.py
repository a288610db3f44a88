"""Jobs that a dead supervisor was given, as far as its successor must know of them.

Frontends send again what is unanswered; only workers know what of it they have
answered meanwhile.  So such a job waits (is parked) while a worker of its
version is still on its way back; then it is one of these:

    answered    its answer is on the way once more: the job is dropped
    torn        it was worked on, and its answer cannot be had
    unknown     nobody who lives has worked on it
    fresh       it was said to us before the frontend knew us, and to nobody else

Source: design sections 3 and 4; issue "Nothing is lost", promise 4.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from stoker.supervisor.jobs import SENT_AGAIN
from stoker.wire.frames import FRONTEND_ID_BYTES, Reply, SubmittedJob

#: Frontends give up what they could not send again for so long (`wire.link.KEEP_S`).
REMEMBER_S: Final = 120.0
MAX_PARKED: Final = 65_536
MAX_FRESH: Final = 65_536


class Inheritance:
    """What came with the workers that came back."""

    def __init__(self) -> None:
        self.parked: dict[bytes, SubmittedJob] = {}
        self._answered: set[bytes] = set()
        self._torn: set[bytes] = set()
        self._fresh: set[bytes] = set()
        self._forget_at = float("inf")

    def take(self, replies: Iterable[Reply], now: float) -> None:
        """What one worker has answered lately."""
        for reply in replies:
            (self._answered if reply.groups else self._torn).update(reply.ended)
        self._forget_at = now + REMEMBER_S

    def overhear(self, jobs: Iterable[SubmittedJob], now: float) -> None:
        """A frontend that did not know us yet has said these to us, and to nobody before."""
        if len(self._fresh) < MAX_FRESH:
            self._fresh.update(job.job_id for job in jobs if not job.flags & SENT_AGAIN)
            self._forget_at = now + REMEMBER_S

    def is_fresh(self, job_id: bytes) -> bool:
        return job_id in self._fresh

    def is_answered(self, job_id: bytes) -> bool:
        return job_id in self._answered

    def is_torn(self, job_id: bytes) -> bool:
        return job_id in self._torn

    def park(self, job: SubmittedJob) -> bool:
        """False when there is no room."""
        if len(self.parked) >= MAX_PARKED:
            return False
        self.parked[job.job_id] = job
        return True

    def forget_frontend(self, frontend_id: bytes) -> None:
        """Its clients are gone with it."""
        for job_id in [j for j in self.parked if j[:FRONTEND_ID_BYTES] == frontend_id]:
            del self.parked[job_id]

    def sweep(self, now: float) -> None:
        """Forget what nobody can ask about any more."""
        if now >= self._forget_at:
            self._answered.clear()
            self._torn.clear()
            self._fresh.clear()
            self._forget_at = float("inf")
