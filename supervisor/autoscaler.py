"""The autoscaler of one version: measures, asks `scaling.py`, and remembers what it said.

There is one where the bounds differ, and none where the count is fixed.  It
looks four times a second, with the engine's sweep.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from stoker.supervisor.batch_times import BatchTimes
from stoker.supervisor.crews import Crew
from stoker.supervisor.load_window import LoadWindow, Totals, longer_than, quantile_s, variation
from stoker.supervisor.pools import Pool
from stoker.supervisor.scaling import (
    AT_MOST,
    FITS,
    NO_ROOM,
    RECOVERS,
    Decision,
    Load,
    ScalingPolicy,
    ScalingState,
    decide,
)
from stoker.supervisor.tally import TIME_BOUNDS

#: For how many of so many more workers there is memory; asked only when more are wanted.
Room = Callable[[int], int]
WOKEN: Final = "a request came"
#: What keeps a version from what it needs is said in the log, but not all the time.
_TROUBLES: Final = frozenset({AT_MOST, NO_ROOM, RECOVERS})
TROUBLE_AGAIN_S: Final = 60.0


class Change(NamedTuple):
    """A decision that changed the number of workers, with the numbers it was based on."""

    at: float
    workers: int
    wanted: int
    reason: str
    facts: dict[str, Any]


class Autoscaler:
    """One version's.

    Attributes:
        wanted: How many workers there should be.
        reason: Why not more and not fewer, in words.
        facts: The numbers that say so.
        change: The latest change.
    """

    def __init__(self, pool: Pool, crew: Crew, now: float) -> None:
        self._pool = pool
        self._crew = crew
        self._window = LoadWindow()
        self._times = BatchTimes()
        self._state = ScalingState(active_at=now, settled_at=now)
        self._ready = 0
        #: When the latest worker got ready, until what waited then is done.
        self._grown_at: float | None = None
        self._noted = (0, 0, 0.0)
        self.wanted = len(crew.slots.staying)
        self.reason: str = FITS
        self.facts: dict[str, Any] = {}
        self.change: Change | None = None
        self._troubled_at: dict[str, float] = {}

    def wake(self, now: float) -> Change:
        """The first worker is started for the first request, which waits for it."""
        self.wanted, self.reason = 1, WOKEN
        self.change = Change(now, 0, 1, WOKEN, {})
        return self.change

    def look(self, room: Room, now: float) -> Change | None:
        """Measure once and decide.

        Returns:
            What should change; or, with the same number twice, a trouble that is news.
        """
        load = self._measure(now)
        policy = self._policy()
        decision = decide(policy, self._state, load, now)
        if decision.wanted > load.workers:
            # Memory is asked about only now, and then decided again.
            load = load._replace(room=room(decision.wanted - load.workers))
            decision = decide(policy, self._state, load, now)
        self._state = decision.state
        self.wanted, self.reason = decision.wanted, decision.reason
        self.facts = self._facts(load)
        change = Change(now, load.workers, decision.wanted, decision.reason, self.facts)
        if decision.wanted != load.workers:
            self.change = change
            return change
        return change if self._is_news(decision, now) else None

    def _is_news(self, decision: Decision, now: float) -> bool:
        if decision.reason not in _TROUBLES:
            return False
        said_at = self._troubled_at.get(decision.reason)
        if said_at is not None and now - said_at < TROUBLE_AGAIN_S:
            return False
        self._troubled_at[decision.reason] = now
        return True

    def _policy(self) -> ScalingPolicy:
        spec, crew = self._crew.spec, self._crew
        return ScalingPolicy(
            crew.min_workers,
            crew.max_workers,
            spec.queue_wait_target_s,
            spec.max_idle_s,
            self._pool.most_at_once,
        )

    # -- measuring ------------------------------------------------------------

    def _measure(self, now: float) -> Load:
        pool, crew, window = self._pool, self._crew, self._window
        queue = pool.queue
        self._note_totals(now)
        staying = crew.slots.staying
        ready = sum(slot.is_ready for slot in staying)
        self._follow_growth(ready, now)
        waits, handling = window.waits(), pool.tally.handling
        patience_s = crew.spec.queue_wait_target_s + pool.delay_s
        return Load(
            workers=len(staying),
            ready=ready,
            arrived=window.arrived(),
            rate=window.rate(),
            steady=window.rate(math.inf),
            growth_per_s=window.growth_per_s(),
            batch_s=self._batch_s(now),
            variation=variation(handling.counts, TIME_BOUNDS, handling.total),
            queued=queue.pending,
            in_hand=sum(len(worker.in_hand) for worker in pool.workers.values()),
            late=longer_than(waits, TIME_BOUNDS, patience_s),
            begun=sum(waits),
            start_s=crew.loads.start_s,
            has_drained=self._grown_at is None,
            is_recovering=any(slot.is_given_up or slot.restart_at is not None for slot in staying),
        )

    def _follow_growth(self, ready: int, now: float) -> None:
        """Waits tell how it is with a new worker when nobody is left who waited before it came."""
        if ready > self._ready:
            self._grown_at = now
        self._ready = ready
        grown_at = self._grown_at
        if grown_at is None:
            return
        oldest = self._pool.queue.oldest()
        if oldest is not None and oldest.arrived_at <= grown_at:
            return
        for worker in self._pool.workers.values():
            for batch in worker.in_hand:
                if any(job.arrived_at <= grown_at for job in batch.jobs):
                    return
        self._grown_at = None
        self._window.count_waits_from(now)

    def _note_totals(self, now: float) -> None:
        pool, tally = self._pool, self._pool.tally
        arrived = tally.default.requests + tally.named.requests
        done_s = tally.handling.total
        self._window.note(Totals(now, arrived, tuple(tally.waits.counts), pool.busy_s(now)))
        batches, jobs = sum(tally.sizes.counts), int(tally.sizes.total)
        known_batches, known_jobs, known_s = self._noted
        self._times.note(batches - known_batches, jobs - known_jobs, done_s - known_s, now)
        self._noted = batches, jobs, done_s

    def _batch_s(self, now: float) -> float | None:
        """How long a full batch takes; of the very first, how long it has taken so far."""
        known = self._times.expect_s(self._pool.most_at_once)
        if known is not None:
            return known
        since = [w.batch_since for w in self._pool.workers.values() if w.in_hand]
        return now - min(since) if since else None

    # -- explaining -----------------------------------------------------------

    def _facts(self, load: Load) -> dict[str, Any]:
        waits = self._window.waits()
        p99_s = quantile_s(waits, TIME_BOUNDS, 0.99)
        batch_s, start_s = load.batch_s, load.start_s
        sizes = self._pool.tally.sizes
        batches = sum(sizes.counts)
        fill = sizes.total / batches / self._pool.most_at_once if batches else None
        return {
            "requests_per_s": round(load.rate.per_s, 3),
            "busy_workers": round(min(self._window.busy(), load.ready), 3),
            "queued": load.queued,
            "wait_p99_s": None if p99_s is None else round(p99_s, 4),
            "batch_s": None if batch_s is None else round(batch_s, 4),
            "batch_fill": None if fill is None else round(fill, 3),
            "start_s": None if start_s is None else round(start_s, 3),
        }
