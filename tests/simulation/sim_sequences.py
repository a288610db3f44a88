"""Sequences in the simulation: how requests name them, and what must hold for them.

A request says of its sequence what stands behind MARK in its payload.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sim_records import check

from stoker.supervisor import actions as a
from stoker.supervisor.jobs import Job
from stoker.supervisor.sequence_pool import SequencePool
from stoker.supervisor.sequences import SequencePolicy
from stoker.supervisor.served import Served
from stoker.supervisor.versions import VersionSpec
from stoker.supervisor.workers import WorkerState
from stoker.wire.sequence_labels import DEFAULT_HEADERS, SequenceLabel, read_label

if TYPE_CHECKING:
    from sim_world import World

MARK = b"\0sequence\0"
#: What a client may be told of its sequence.
REFUSALS = frozenset(
    {"sequence_closed", "sequence_lost", "sequence_queue_full", "too_many_sequences"}
)


def random_policy(rng: random.Random) -> SequencePolicy:
    return SequencePolicy(
        max_idle_s=rng.choice((0.3, 1.0, 5.0)),
        timeout_s=rng.choice((0.0, 0.0, 3.0)),
        max_open=rng.choice((1, 4, 40)),
        max_waiting=rng.choice((1, 1, 3)),
    )


def random_label(rng: random.Random) -> bytes:
    """Of a client that may know what sequences are; a few names, so that they meet."""
    if rng.random() < 0.2:
        return b""
    name = rng.choice("abcdefghijkl")
    start = "true" if rng.random() < 0.15 else ""
    end = "true" if rng.random() < 0.1 else ""
    texts = (DEFAULT_HEADERS.name, name, DEFAULT_HEADERS.start, start, DEFAULT_HEADERS.end, end)
    return MARK + "\n".join(texts).encode()


def headers_in(payload: bytes) -> list[str]:
    _, mark, said = payload.rpartition(MARK)
    return said.decode().split("\n") if mark else []


def label_of(job_id: bytes, payload: bytes) -> SequenceLabel:
    return read_label(DEFAULT_HEADERS, job_id, headers_in(payload))


@dataclass(slots=True)
class Life:
    """A sequence as its worker knows it.

    Attributes:
        quiet_since: When its worker was last done with one of its jobs.
        has_state: Its worker has been done with one.
        is_over: It was ended, by whoever may.
        order: Of the latest job that was sent.
    """

    worker_id: int
    opened_at: float
    quiet_since: float
    order: int
    in_hand: bytes | None = None
    has_state: bool = False
    is_over: bool = False


class SequenceJudge:
    """A sequence's requests are handled in order, by one worker, one at a time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lives: dict[tuple[VersionSpec, str], Life] = {}

    def judge_batch(self, spec: VersionSpec, action: a.SendBatch) -> None:
        names: list[str] = []
        for job in action.jobs:
            label = label_of(job.job_id, job.payload)
            assert label.name is not None
            names.append(label.name)
            self._judge_job(spec, action.worker_id, job, label)
        check(len(set(names)) == len(names), "one request of a sequence in a batch", names)
        self._world.counts["sequences: jobs sent"] += len(names)

    def _judge_job(self, spec: VersionSpec, worker_id: int, job: Job, label: SequenceLabel) -> None:
        world, policy = self._world, spec.sequences
        assert policy is not None
        assert label.name is not None
        now, key = world.now, (spec, label.name)
        order = world.jobs[job.job_id].order
        life = self._lives.get(key)
        if life is not None:
            is_free = life.in_hand is None or self._is_given_up(life, worker_id, label)
            check(is_free, "one request of a sequence at a time", label, worker_id)
            check(order > life.order, "a sequence's requests keep their order", label)
        if life is None or life.worker_id != worker_id:
            if life is not None:
                may_be_new = (
                    label.is_start
                    or life.is_over
                    or not life.has_state
                    or now - life.quiet_since >= policy.max_idle_s - 1e-6
                    or 0 < policy.timeout_s <= now - life.opened_at + 1e-6
                )
                check(may_be_new, "a sequence lives in one worker", label, life, worker_id, now)
                is_alive = world.engine.worker(life.worker_id) is not None
                world.counts[f"sequences: moved, {'' if is_alive else 'not '}alive"] += 1
            self._lives[key] = life = Life(worker_id, job.arrived_at, now, order)
        elif life.is_over:
            self._lives[key] = life = Life(worker_id, job.arrived_at, now, order)
        life.order, life.in_hand = order, job.job_id

    def _is_given_up(self, life: Life, worker_id: int, label: SequenceLabel) -> bool:
        """Its worker has been given up and counts as none: what comes next begins anew elsewhere.

        What it has in hand may still be answered, or its client has been told
        already; only who says start need not wait for that (`Sequences.lose`).
        """
        if life.worker_id == worker_id:
            return False
        worker = self._world.engine.worker(life.worker_id)
        is_dying = worker is None or worker.state is WorkerState.DYING
        return life.in_hand not in self._world.jobs or (is_dying and label.is_start)

    def note_done(self, spec: VersionSpec, job_ids: list[bytes]) -> None:
        """A worker is done with these."""
        for job_id in job_ids:
            label = label_of(job_id, self._world.payloads[job_id])
            life = self._lives.get((spec, label.name or ""))
            if life is not None and life.in_hand == job_id:
                life.in_hand = None
                # Whose client has been told already knows of no state.
                life.has_state = life.has_state or job_id in self._world.jobs
                life.quiet_since = self._world.now
                life.is_over = life.is_over or label.is_end

    def note_ended(self, spec: VersionSpec, worker_id: int, names: list[str]) -> None:
        """A handler has ended these."""
        for name in names:
            life = self._lives.get((spec, name))
            if life is not None and life.worker_id == worker_id:
                life.is_over = True
                self._world.counts["sequences: ended by a handler"] += 1

    def note_exit(self, worker_id: int) -> None:
        for life in self._lives.values():
            if life.worker_id == worker_id and life.in_hand is not None:
                # What its client has called the last one was the last one.
                label = label_of(life.in_hand, self._world.payloads[life.in_hand])
                life.is_over = life.is_over or label.is_end
                life.in_hand = None

    def look_at_dispatch(self, served: Served) -> None:
        """At the end of a turn nobody waits for nothing."""
        pool = served.pool
        assert isinstance(pool, SequencePool)
        next_due = self._world.engine.next_due()
        check(not (pool.sequences.homeless and pool._emptiest()), "a new one gets a home")
        for worker in pool.workers.values():
            home = pool.sequences.homes.get(worker.worker_id)
            if home is None or not home.due or worker.state is not WorkerState.READY:
                continue
            due_at = pool._due_at(home, next(iter(home.due.values())))
            check(next_due <= due_at, "a free worker does not wait for due work", due_at)

    def look(self, served: Served) -> None:
        """Every waiting job is where it belongs, and none is forgotten."""
        pool = served.pool
        assert isinstance(pool, SequencePool)
        sequences = pool.sequences
        waiting = {job.job_id for sequence in sequences for job in sequence.waiting}
        queued = {job.job_id for job in pool.queue} - pool._questions.keys()
        check(waiting == queued, "who waits is in the queue", served.spec.key)
        for worker_id, home in sequences.homes.items():
            for sequence in home.sequences.values():
                check(sequence.worker_id == worker_id, "a sequence has one home", sequence.name)
                is_known = sequence.name in home.due
                check(is_known == sequence.is_due, "what is due is known", sequence.name)
        most = pool._limits.max_waiting
        for sequence in sequences:
            check(len(sequence.waiting) <= most, "a sequence keeps its bound", sequence.name)
            is_homeless = sequence.name in sequences.homeless
            check(is_homeless == (sequence.worker_id is None), "the rest waits", sequence.name)
