"""Which worker the next batch goes to, and when its answers are looked at.

A free worker never waits while jobs that are due do.  Beyond that a worker
may hold batches it has not started (its credit), so that it never idles for
the length of a round trip.  Credit is worth most for handlers of
microseconds and harmful for slow ones: a job bound to a busy worker cannot go
to another one that becomes free (design section 3, with one departure: batches
sent ahead are always full ones, because a partial batch can still grow while
it waits for a free worker).

Of a handler of a millisecond each answer wakes three processes, and that costs
a third of what the handler does.  Nobody gains by it while a queue is deep: a
client that hears a moment later has its next request answered as early.  So
such a worker is given more ahead, and looked at again when it has done half.
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
#: The same while at least as many batches wait as are held.
DEEP_AHEAD_S: Final = 0.009
#: Service times whose answers are gathered.  Workers gather shorter ones themselves
#: (`worker/channel.py`); beside longer ones a wake-up is nothing.
MIN_GATHERED_S: Final = 0.000_25
MAX_GATHERED_S: Final = 0.0015
#: With fewer in hand, a worker might have nothing to do before we look.
MIN_HELD: Final = 4
#: No answer is left lying for longer.
GATHERING_S: Final = 0.005
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


def deep_credit(service_time_s: float | None) -> int:
    """How many it may hold while at least as many wait; 0 where that makes no difference."""
    if service_time_s is None or not MIN_GATHERED_S <= service_time_s <= MAX_GATHERED_S:
        return 0
    return min(MAX_CREDIT, int(DEEP_AHEAD_S / service_time_s))


def may_hold_more(worker: Worker, worker_count: int, waiting: int) -> bool:
    """Whether a busy worker may be given the next one of so many batches that wait."""
    held = len(worker.in_hand)
    if held < credit(worker.service_time_s, worker_count):
        return True
    return held * worker_count <= waiting and held < deep_credit(worker.service_time_s)


def gathering_s(worker: Worker) -> float:
    """How long its answers may gather before somebody looks at them; 0.0: not at all.

    In that time it does half of what it holds; the other half keeps it busy until it gets more.
    """
    held = len(worker.in_hand)
    if held < MIN_HELD or worker.state is not WorkerState.BUSY:
        return 0.0
    service_time_s = worker.service_time_s
    if service_time_s is None or not MIN_GATHERED_S <= service_time_s <= MAX_GATHERED_S:
        return 0.0
    return min(held / 2 * service_time_s, GATHERING_S)


def choose_busy(workers: Iterable[Worker], worker_count: int, waiting: int) -> Worker | None:
    """The busy worker that may take one more batch and holds the fewest; None if there is none.

    Args:
        waiting: Whole batches that wait, that one included.
    """
    best: Worker | None = None
    for worker in workers:
        if worker.state is not WorkerState.BUSY:
            continue
        if best is not None and len(worker.in_hand) >= len(best.in_hand):
            continue
        if may_hold_more(worker, worker_count, waiting):
            best = worker
    return best
