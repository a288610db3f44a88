"""When a batch is worth sending.

Unlike the peer, the delay is counted from the first job's *arrival*, not from
the moment somebody looked at it (contracts/torchserve.md 8.2 and 12.12), and
workers never wait for each other to assemble.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from stoker.supervisor.jobs import Job
from stoker.supervisor.queues import JobQueue
from stoker.wire.limits import MAX_WORK_BYTES

#: Of the payloads of a batch that has more than one; what lies in shared memory does not count.
MAX_BATCH_BYTES: Final = MAX_WORK_BYTES


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """`max_size` jobs at most, after `delay_s` at the latest."""

    max_size: int = 1
    delay_s: float = 0.1


class Taken(NamedTuple):
    """What left the queue: a batch (perhaps empty), and jobs nobody waits for any more."""

    jobs: list[Job]
    expired: list[Job]


def is_full(queue: JobQueue, policy: BatchPolicy) -> bool:
    """Whether waiting longer could not make the next batch larger.

    A describe job, wherever it is, travels alone and lets nothing pass.
    """
    return len(queue) >= policy.max_size or queue.loners > 0


def ready_at(queue: JobQueue, policy: BatchPolicy) -> float | None:
    """The instant at which what is queued now should go to an idle worker.

    Returns None when nothing is queued; an instant in the past when the batch
    is due already.
    """
    oldest = queue.oldest()
    if oldest is None:
        return None
    if policy.delay_s <= 0 or is_full(queue, policy):
        return oldest.arrived_at
    return oldest.arrived_at + policy.delay_s


def take_batch(queue: JobQueue, policy: BatchPolicy, now: float) -> Taken:
    """Take the next batch, without asking whether it is due.

    Jobs whose deadline has passed are never part of a batch, so a slow model
    does not work for clients who gave up; they are returned apart.  A
    describe job travels alone, and a batch ends before it would be too large to send.
    """
    jobs: list[Job] = []
    expired: list[Job] = []
    room, waiting = policy.max_size, len(queue)
    held_bytes = 0
    while waiting and room:
        waiting -= 1
        job = queue.take()
        if job.deadline <= now:
            expired.append(job)
        elif job.is_loner:
            if jobs:
                queue.put_back([job])
            else:
                jobs.append(job)
            break
        else:
            if jobs:
                held_bytes += len(jobs[-1].payload)
                if held_bytes + len(job.payload) > MAX_BATCH_BYTES:
                    queue.put_back([job])
                    break
            jobs.append(job)
            room -= 1
    return Taken(jobs, expired)
