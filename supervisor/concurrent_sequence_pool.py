"""The pool of a version with both: sequences, and workers that work on many requests at once.

A worker's hand takes one job of each sequence that lives there, as long as
there is room; the next of a sequence joins when the last has left.

Source: contracts/torchserve.md 8.7, "both".
"""

from __future__ import annotations

from stoker.supervisor.concurrent_pools import ConcurrentPool, Run
from stoker.supervisor.sequence_pool import SequencePool
from stoker.supervisor.workers import Worker, WorkerState
from stoker.wire.frames import Reply


class ConcurrentSequencePool(SequencePool, ConcurrentPool):
    """Who may come in and where it goes is as in the first; how it leaves as in the second."""

    def _serve_all(self, now: float) -> None:
        for worker in self.workers.values():
            if worker.state in (WorkerState.READY, WorkerState.BUSY):
                self._fill(worker, now)

    def _fill(self, worker: Worker, now: float) -> None:
        """Give a worker what is due there, one by one, while it has room."""
        if not worker.in_hand and not self.is_winding_down(worker):
            for question in list(self._questions.values()):
                for job in self._take_question(question, now):
                    self._give(worker, job, now)
                    return
        home = self.sequences.homes.get(worker.worker_id)
        while home is not None and home.due:
            if len(worker.in_hand) >= self._most_jobs or _wants_no_company(worker):
                return
            sequence = next(iter(home.due.values()))
            self._expire_next(sequence, now)
            if sequence.name not in home.due:
                continue
            if sequence.waiting[0].is_loner and worker.in_hand:
                return  # nobody else comes in before it
            job = self.sequences.take(sequence)
            self.queue.remove(job.job_id)
            self._give(worker, job, now)

    def take_reply(self, worker: Worker, reply: Reply, now: float) -> None:
        run = self._find(worker, reply.batch_id)
        super().take_reply(worker, reply, now)
        if reply.is_last:
            for job in run.jobs:
                self._turn_away(self.sequences.finish(job, now), self._closed)


def _wants_no_company(worker: Worker) -> bool:
    latest = worker.in_hand[-1] if worker.in_hand else None
    return isinstance(latest, Run) and latest.wants_to_be_alone
