"""What is counted about one version's jobs; plain numbers, no clock and no names.

Noted once per batch, when it is done, so that a job costs the loop a few
additions.  Cumulative: whoever reads takes differences.

Source: contracts/torchserve.md 10.2.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from stoker.supervisor.jobs import Asked, Job, JobState

#: Upper ends of the buckets, in seconds; another one has what lies above.
TIME_BOUNDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
COMPLETED: Final = JobState.COMPLETED
SIZE_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Histogram:
    """How many values fell into each bucket, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0


class Tally:
    """One version's numbers.

    Attributes:
        default: Of jobs whose client named no version.
        named: Of those whose client did.
        last_wait_s: Of the latest job that a worker took up.
    """

    __slots__ = ("default", "handling", "last_wait_s", "named", "sizes", "waits")

    def __init__(self) -> None:
        self.default = Asked()
        self.named = Asked()
        self.waits = Histogram(TIME_BOUNDS)
        self.handling = Histogram(TIME_BOUNDS)
        self.sizes = Histogram(SIZE_BOUNDS)
        self.last_wait_s = 0.0

    @property
    def is_empty(self) -> bool:
        return not (self.default.requests or self.named.requests)

    def note_batch(self, jobs: Sequence[Job], begun_at: float, now: float, size: int = 0) -> None:
        """A worker began these then, and is done with all of them now.

        Args:
            size: Jobs that were worked on together, if not just these.
        """
        size = size or len(jobs)
        sizes, handling = self.sizes, self.handling
        sizes.counts[bisect_left(SIZE_BOUNDS, size)] += 1
        sizes.total += size
        took_s = now - begun_at
        handling.counts[bisect_left(TIME_BOUNDS, took_s)] += 1
        handling.total += took_s
        counts = self.waits.counts
        waited_s = wait_s = 0.0
        for job in jobs:
            if job.state is not COMPLETED:
                continue
            wait_s = begun_at - job.arrived_at
            if wait_s < 0.0:  # it came while the worker was between two batches
                wait_s = 0.0
            waited_s += wait_s
            counts[bisect_left(TIME_BOUNDS, wait_s)] += 1
            asked = job.asked
            if asked is not None:
                asked.queue_s += wait_s
                asked.latency_s += wait_s + took_s
        self.waits.total += waited_s
        self.last_wait_s = wait_s
