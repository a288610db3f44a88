"""Jobs that frontends send again, since our predecessor left them unanswered.

What is known of one (`inheritance.py`), and what its version says, together
decide whether it is queued like any other:

    answered                         no: its answer is on the way
    a worker is still coming back    not yet: it is parked
    torn, or perhaps begun by one    no, unless it may be tried again: lost
      that is gone
    everything else                  yes
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from stoker.archives.graph import GraphNode
from stoker.errors import StokerError, WorkerDied
from stoker.supervisor.inheritance import Inheritance
from stoker.supervisor.jobs import TAKES_TURNS
from stoker.supervisor.registry import Registry
from stoker.supervisor.served import Served
from stoker.supervisor.worker_numbers import WorkerNumbers
from stoker.wire.frames import SubmittedJob

LOST: Final = (
    "The supervisor died with the request in hand, a {whoever} may have begun it, "
    "and its handler must not get it twice."
)


class SentAgain:
    """What becomes of each."""

    def __init__(
        self, inheritance: Inheritance, registry: Registry[Served], numbers: WorkerNumbers
    ) -> None:
        self._inheritance = inheritance
        self._registry = registry
        self._numbers = numbers

    def is_held(self, job: SubmittedJob) -> bool:
        """Whether there is nothing to queue (yet).

        Raises:
            WorkerDied: It is lost.
        """
        job_id, model, version, _, flags, _ = job
        inheritance = self._inheritance
        if inheritance.is_fresh(job_id):
            return False
        if inheritance.is_answered(job_id):
            return True
        try:
            if version is None and flags & TAKES_TURNS:
                choice = self._registry.all_versions(model)  # nobody knows whose turn it was
            else:
                choice = [self._registry.find(model, version)]
        except StokerError:
            return False  # said where all jobs are told so
        if any(served.crew.awaits_return for served in choice):
            return inheritance.park(job)
        may_go_twice = all(served.spec.max_attempts > 1 for served in choice)
        if may_go_twice or not (self._has_unknown(choice) or inheritance.is_torn(job_id)):
            return False
        spec = choice[0].spec
        raise WorkerDied(
            LOST.format(whoever="worker"), reason="exit", model=spec.model, version=spec.version
        )

    def _has_unknown(self, choice: Iterable[Served]) -> bool:
        """Is a worker gone that has not said what it had begun?"""
        return any(
            served.crew.lost_orphans > 0 or self._numbers.has_dead(served.spec) for served in choice
        )

    def check_run(self, job: SubmittedJob, nodes: Iterable[GraphNode]) -> None:
        """Whether a run that our predecessor may have begun may be begun again.

        Raises:
            WorkerDied: A node of it must not.
        """
        if self._inheritance.is_fresh(job.job_id):
            return
        if any(self._goes_once(node) for node in nodes):
            raise WorkerDied(LOST.format(whoever="node"), model=job.model, reason="exit")

    def _goes_once(self, node: GraphNode) -> bool:
        try:
            return self._registry.find(node.model, node.version).spec.max_attempts <= 1
        except StokerError:
            return False  # said where all jobs are told so
