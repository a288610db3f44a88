"""What must hold for sequences of the simulated server, whoever dies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sim_records import check
from sim_sequences import MARK, label_of

from stoker.supervisor.jobs import Job
from stoker.supervisor.sequences import SequencePolicy
from stoker.supervisor.workers import WorkerState
from stoker.wire.frames import FRONTEND_ID_BYTES, WorkJob

if TYPE_CHECKING:
    from whole_worker import WholeWorker
    from whole_world import World


@dataclass(slots=True)
class Home:
    """Where a sequence lives, as its worker's handler knows it.

    Attributes:
        quiet_since: When a worker was last done with one of its jobs.
        is_ending: Its last job has been sent, which the worker may not have begun.
        numbers: Of the latest job of each frontend.
    """

    worker: WholeWorker
    opened_at: float
    quiet_since: float
    in_hand: WorkJob | None = None
    has_state: bool = False
    is_over: bool = False
    is_ending: bool = False
    numbers: dict[bytes, int] = field(default_factory=dict)


class SequenceJudge:
    """A sequence never meets a worker without its state."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._homes: dict[tuple[str, str], Home] = {}

    def begin(self, worker: WholeWorker, job: WorkJob) -> None:
        policy = worker.spec.sequences
        label = label_of(job.job_id, job.payload)
        if policy is None or label.name is None:
            return
        now = self._world.agenda.now
        key = (worker.spec.model, label.name)
        home = self._homes.get(key)
        if home is not None:
            is_free = home.in_hand is None or self._is_given_up(home, worker)
            check(is_free, "one request of a sequence at a time", label)
        if home is None or home.worker is not worker or home.is_over:
            if home is not None and home.worker is not worker:
                may = label.is_start or not home.has_state or home.is_over
                may = may or self._is_over(home, policy, now)
                check(may, "a sequence lives in one worker", label, now, home)
                self._world.counts["sequence moved"] += 1
            home = self._homes[key] = Home(worker, self._asked_at(job, now), now)
        elif home.has_state:
            is_adopted = worker.adoptions > 0
            self._world.counts[f"sequence goes on{' after a death' if is_adopted else ''}"] += 1
        frontend = job.job_id[:FRONTEND_ID_BYTES]
        number = 0 if label.is_made else int(job.payload.partition(MARK)[0])
        check(number > home.numbers.get(frontend, -2), "its requests keep their order", label)
        home.numbers[frontend] = number
        home.in_hand = job

    def _asked_at(self, job: WorkJob, now: float) -> float:
        """Its age counts from the request that opened it, which may have waited for a worker."""
        asked = self._world.judge.asked.get(job.job_id)
        return now if asked is None else asked.at

    def _is_given_up(self, home: Home, worker: WholeWorker) -> bool:
        """A worker that hangs and is being killed counts as none (`Sequences.lose`)."""
        supervisor = self._world.supervisor
        if home.worker is worker or supervisor is None:
            return False
        known = supervisor.engine.worker(home.worker.worker_id)
        return known is None or known.state is WorkerState.DYING

    @staticmethod
    def _is_over(home: Home, policy: SequencePolicy, now: float) -> bool:
        is_idle = now - home.quiet_since >= policy.max_idle_s - 1e-6
        return is_idle or 0 < policy.timeout_s <= now - home.opened_at + 1e-6

    def finish(self, worker: WholeWorker, jobs: list[WorkJob], ended: list[str]) -> None:
        """Its handler is done with these, of which it has ended some."""
        for job in jobs:
            label = label_of(job.job_id, job.payload)
            home = self._homes.get((worker.spec.model, label.name or ""))
            if home is not None and home.worker is worker:
                is_in_hand = home.in_hand is not None and home.in_hand.job_id == job.job_id
                home.in_hand = None
                home.quiet_since = self._world.agenda.now
                home.has_state = home.has_state or is_in_hand
                home.is_over = home.is_over or label.is_end or label.name in ended

    def note_sent(self, model: str, worker_id: int, jobs: Iterable[Job]) -> None:
        """A supervisor has sent these; the worker may never get them."""
        for job in jobs:
            label = label_of(job.job_id, job.payload)
            home = self._homes.get((model, label.name or ""))
            if home is not None and home.worker.worker_id == worker_id:
                home.is_ending = home.is_ending or label.is_end

    def note_death(self, worker: WholeWorker) -> None:
        for home in self._homes.values():
            if home.worker is worker:
                # What its client has called the last one was the last one.
                home.is_over = home.is_over or home.is_ending
                home.in_hand = None
