"""The pool of a version with sequences: who may come in, and which batch goes where.

A batch goes to an idle worker only, and has at most one job of each sequence
that lives there; nothing is sent ahead.  A worker that is told to leave keeps
its sequences to their end, and gets no new ones.

Nothing is tried twice: what was lost with a worker had changed its state there.

Source: contracts/torchserve.md 8.7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from stoker.errors import (
    InvalidParameter,
    SequenceClosed,
    SequenceLost,
    SequenceQueueFull,
    StokerError,
    TooManySequences,
)
from stoker.supervisor import batching
from stoker.supervisor.commons import Commons
from stoker.supervisor.jobs import Job, JobEvent
from stoker.supervisor.pools import Pool
from stoker.supervisor.quarantine import Loss
from stoker.supervisor.recovery import Lost, Told
from stoker.supervisor.sequences import Home, KnownSequence, OpenSequence, SequencePolicy, Sequences
from stoker.supervisor.versions import VersionSpec
from stoker.supervisor.workers import Worker, WorkerState
from stoker.wire.sequence_labels import MAX_NAME_BYTES, SequenceLabel, read_label

_NOBODY: Final = Home()


class SequencePool(Pool):
    """As `Pool`, for a version whose spec has `sequences`."""

    def __init__(self, spec: VersionSpec, commons: Commons) -> None:
        assert spec.sequences is not None
        assert spec.max_attempts == 1
        super().__init__(spec, commons)
        self.sequences = Sequences(spec.sequences)
        self._contents = commons.contents
        self._limits: SequencePolicy = spec.sequences
        self._headers = spec.sequences.headers.lowered()
        self._queue_capacity = spec.queue_capacity
        #: As many as may be open, in all and in one worker.
        self.max_open = spec.sequences.max_open
        self._max_at_home = spec.sequences.max_open
        #: Workers of a predecessor's that have not said what lives in them.
        self._expected: set[int] = set()
        #: Workers that leave when their sequences have ended.
        self._closing: set[int] = set()
        #: Nobody waits for a sequence any more.
        self._is_ending = False
        #: Waiting jobs that belong to no sequence.
        self._questions: dict[bytes, Job] = {}
        self.resize(0, 1)

    def resize(self, min_workers: int, max_workers: int) -> None:
        """So many workers are wanted."""
        limits = self._limits
        self.max_open = max(limits.max_open, self.policy.max_size * max_workers)
        self._max_at_home = -(-self.max_open // max(1, min_workers))
        self._takes_new = max_workers > 0
        self.queue.capacity = max(self._queue_capacity, self.max_open * limits.max_waiting)

    # -- jobs ---------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        super().submit(job)
        label = self._label(job)
        if label.name is None:
            self._questions[job.job_id] = job
            return
        try:
            self._check(job, label, label.name)
        except StokerError as error:
            if "version" in error.details and job.asked is self.tally.default:
                error.details["version"] = None
            self.queue.remove(job.job_id)
            self._fail(job, error)
        else:
            self.sequences.put(job, label)

    def _label(self, job: Job) -> SequenceLabel:
        texts = () if self._contents is None else self._contents.headers(job.payload)
        return read_label(self._headers, job.job_id, texts)

    def _check(self, job: Job, label: SequenceLabel, name: str) -> None:
        """Raises what keeps a job out of its sequence."""
        sequences = self.sequences
        sequence = sequences.find(name)
        if sequence is not None:
            if not sequences.accepts(sequence, label):
                raise self._closed(name)
            if not sequences.has_room(sequence, job):
                raise SequenceQueueFull(
                    f"{self._limits.max_waiting} requests of the sequence wait already; "
                    "send the next one when one is answered.",
                    likely="maxSequenceJobQueueSize",
                    **self._facts(name),
                )
            return
        if len(name.encode()) > MAX_NAME_BYTES:
            raise InvalidParameter(
                f"Header {self._limits.headers.name} is longer than {MAX_NAME_BYTES} bytes.",
                parameter=self._limits.headers.name,
            )
        if not self._takes_new:
            raise self.no_worker()
        if not self._expected:
            if error := self._unknown(label, job.arrived_at):
                raise error
            if len(sequences) >= self.max_open:
                raise TooManySequences(
                    f"{self.max_open} sequences of model {self.model} are open, as many as may be; "
                    "try again later.",
                    limit=self.max_open,
                    likely="maxNumSequence",
                    **self._facts(name),
                )

    def _unknown(self, label: SequenceLabel, now: float) -> StokerError | None:
        """Why a name that is not open may not open a sequence."""
        assert label.name is not None
        if self.sequences.is_lost(label, now):
            return self._lost(label.name)
        if self.sequences.is_over(label):
            return self._closed(label.name)
        return None

    def _end(self, job: Job, event: JobEvent) -> None:
        super()._end(job, event)
        if self._questions.pop(job.job_id, None) is None:
            self.sequences.drop(job)

    def expire(self, now: float) -> None:
        super().expire(now)
        self._turn_away(self.sequences.sweep(now), self._closed)

    # -- workers --------------------------------------------------------------------

    def join(self, worker: Worker) -> None:
        self._expected.discard(worker.worker_id)
        super().join(worker)

    def retire(self, worker: Worker) -> None:
        super().retire(worker)
        self._part_with(worker)

    def lose(self, worker: Worker, loss: Loss, told: Told, cause: str, now: float) -> Lost:
        if worker.worker_id in self._expected:
            self._expected.discard(worker.worker_id)
            self.sequences.doubt()
        lost = super().lose(worker, loss, told, cause, now)
        self._part_with(worker)
        return lost

    def _part_with(self, worker: Worker) -> None:
        self._closing.discard(worker.worker_id)
        self.serves_on = bool(self._closing)
        self._turn_away(self.sequences.lose(worker.worker_id), self._lost)

    def winds_down(self, worker: Worker) -> bool:
        worker_id = worker.worker_id
        if self._is_ending or not self.sequence_count(worker_id):
            return False
        if worker.state not in (WorkerState.READY, WorkerState.BUSY, WorkerState.STALLED):
            return False
        self._closing.add(worker_id)
        self.serves_on = True
        return True

    def is_winding_down(self, worker: Worker) -> bool:
        return worker.worker_id in self._closing

    def has_wound_down(self, worker: Worker) -> bool:
        return self._is_ending or not self.sequence_count(worker.worker_id)

    def end_sequences(self) -> None:
        self._is_ending = True

    def sequence_count(self, worker_id: int) -> int:
        """How many live in a worker."""
        return len(self.sequences.homes.get(worker_id, _NOBODY))

    # -- workers of a predecessor's --------------------------------------------------

    def expect(self, worker: Worker) -> None:
        self._expected.add(worker.worker_id)

    def doubt(self) -> None:
        self.sequences.doubt()

    def take_back(self, worker: Worker, known: Sequence[KnownSequence], now: float) -> None:
        self.sequences.take_back(worker.worker_id, known, now)

    # -- batches out, answers in ---------------------------------------------------------

    def dispatch(self, now: float) -> None:
        self.due_at = None
        if not len(self.queue) or self._expected:
            return
        while True:
            self._find_homes(now)
            self.due_at = None
            self._serve_all(now)
            if not self.sequences.homeless or self._emptiest() is None:
                return  # else what should have started one came too late

    def _serve_all(self, now: float) -> None:
        for worker in list(self._idle.values()):
            self._serve(worker, now)

    def _find_homes(self, now: float) -> None:
        """Pin what is new to the workers that have the fewest."""
        for sequence in list(self.sequences.homeless.values()):
            if error := self._unknown(self.sequences.opening(sequence), now):
                told = self._lost if isinstance(error, SequenceLost) else self._closed
                self._turn_away(self.sequences.reject(sequence), told)
                continue
            worker = self._emptiest()
            if worker is None:
                return
            self.sequences.pin(sequence, worker.worker_id)

    def _emptiest(self) -> Worker | None:
        best: Worker | None = None
        fewest = self._max_at_home
        for worker in self.workers.values():
            if (
                worker.worker_id not in self._closing
                and worker.state in (WorkerState.READY, WorkerState.BUSY)
                and self.sequence_count(worker.worker_id) < fewest
            ):
                best, fewest = worker, self.sequence_count(worker.worker_id)
        return best

    def _serve(self, worker: Worker, now: float) -> None:
        """Send an idle worker what is due, or note when it will be."""
        home = self.sequences.homes.get(worker.worker_id, _NOBODY)
        while True:
            first = next(iter(home.due.values()), None)
            question = next(iter(self._questions.values()), None)
            if question is not None and self.is_winding_down(worker):
                question = None
            if first is None and question is None:
                return
            if question is not None and (
                first is None or question.sequence < first.waiting[0].sequence
            ):
                jobs = self._take_question(question, now)
            else:
                assert first is not None
                due_at = self._due_at(home, first)
                if due_at > now:
                    self.due_at = due_at if self.due_at is None else min(self.due_at, due_at)
                    return
                jobs = self._take_due(home, now)
            if jobs:
                self._send(worker, jobs, now)
                return

    def _due_at(self, home: Home, first: OpenSequence) -> float:
        """A batch is full when no other sequence that lives there could add to it."""
        due = home.due
        arrived_at = first.waiting[0].arrived_at
        if len(due) >= min(self.policy.max_size, len(home)):
            return arrived_at
        if self.queue.loners and any(each.waiting[0].is_loner for each in due.values()):
            return arrived_at
        return arrived_at + self.policy.delay_s

    def _take_question(self, job: Job, now: float) -> list[Job]:
        del self._questions[job.job_id]
        self.queue.remove(job.job_id)
        if job.deadline <= now:
            self._expire(job)
            return []
        return [job]

    def _take_due(self, home: Home, now: float) -> list[Job]:
        """One job of each of the sequences that have waited longest; what is too late is told."""
        jobs: list[Job] = []
        held_bytes = 0
        while home.due and len(jobs) < self.policy.max_size:
            sequence = next(iter(home.due.values()))
            self._expire_next(sequence, now)
            if sequence.name not in home.due:
                continue
            is_loner = sequence.waiting[0].is_loner
            held_bytes += len(sequence.waiting[0].payload)
            if jobs and (is_loner or held_bytes > batching.MAX_BATCH_BYTES):
                break
            job = self.sequences.take(sequence)
            self.queue.remove(job.job_id)
            jobs.append(job)
            if is_loner:
                break
        return jobs

    def _expire_next(self, sequence: OpenSequence, now: float) -> None:
        while sequence.waiting and sequence.waiting[0].deadline <= now:
            late = sequence.waiting[0]
            self.queue.remove(late.job_id)
            self._expire(late)

    def end_of(self, worker: Worker, names: Sequence[str]) -> None:
        self._turn_away(self.sequences.end(worker.worker_id, names), self._closed)

    def _finish_batch(self, worker: Worker, now: float) -> None:
        batch = worker.in_hand[0]
        super()._finish_batch(worker, now)
        for job in batch.jobs:
            self._turn_away(self.sequences.finish(job, now), self._closed)

    # -- words --------------------------------------------------------------------------

    def _turn_away(self, jobs: list[Job], told: Callable[[str], StokerError]) -> None:
        for job in jobs:
            name = self._label(job).name
            assert name is not None
            self.queue.remove(job.job_id)
            self._fail(job, told(name))

    def _facts(self, name: str) -> dict[str, str]:
        return {"model": self.model, "version": self.version, "sequence": name}

    def _closed(self, name: str) -> SequenceClosed:
        return SequenceClosed(
            f"Sequence {name} has ended; start a new one.",
            likely="its end, sequenceMaxIdleMSec or sequenceTimeoutMSec",
            **self._facts(name),
        )

    def _lost(self, name: str) -> SequenceLost:
        return SequenceLost(
            f"The worker is gone in which sequence {name} lived, and its state with it; "
            "start it anew.",
            likely="its worker is gone",
            **self._facts(name),
        )
