"""Which worker the next batch goes to.

A free worker never waits while jobs that are due do.  Beyond that a worker
may hold batches it has not started (its credit), so that it never idles for
the length of a round trip.  Credit is worth most for handlers of
microseconds and harmful for slow ones: a job bound to a busy worker cannot go
to another one that becomes free (design section 3, with one departure: batches
sent ahead are always full ones, because a partial batch can still grow while
it waits for a free worker).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from stoker.supervisor.workers import Worker, WorkerState

#: Enough to hide the round trip once a batch takes a millisecond.
DEFAULT_CREDIT: Final = 2
MAX_CREDIT: Final = 32
#: Work a worker may hold ahead, when batches are that short.
AHEAD_S: Final = 0.001
#: From this service time on the round trip is below one per cent, and waiting
#: behind a busy worker would cost more than it.
SLOW_S: Final = 0.02


def credit(service_time_s: float | None, worker_count: int) -> int:
    """How many batches one worker may hold, the running one included."""
    if service_time_s is None:
        return DEFAULT_CREDIT if worker_count == 1 else 1
    if worker_count > 1 and service_time_s >= SLOW_S:
        return 1
    if service_time_s * MAX_CREDIT <= AHEAD_S:
        return MAX_CREDIT  # also the smallest floats, by which nothing can be divided
    return max(DEFAULT_CREDIT, int(AHEAD_S / service_time_s))


def choose_busy(workers: Iterable[Worker], worker_count: int) -> Worker | None:
    """The busy worker that may take one more batch and holds the fewest; None if there is none."""
    best: Worker | None = None
    for worker in workers:
        if worker.state is not WorkerState.BUSY:
            continue
        held = len(worker.in_hand)
        if held >= credit(worker.service_time_s, worker_count):
            continue
        if best is None or held < len(best.in_hand):
            best = worker
    return best
