"""How many workers a version should have, and why.

With one number for both bounds the count is fixed, as at the peer
(contracts/torchserve.md 3.5).  Between two, measurements decide:

    more     the load does not fit any more     Erlang's formula (`congestion.py`), for the load
                                                there will be when a new worker could be ready
             the queue would not drain          even without a new worker's help until it is ready
             requests wait too long             measured, whatever the formula says
    fewer    a smaller count has fitted all of the time for `max_idle_s`
             nothing came for `max_idle_s`      down to the minimum at once

What keeps it from swinging: more are started for what surely comes, fewer are
kept for what may come (the two ends of what chance may make of a rate); the
waits of before a new worker came are not held against it; and a count that
was too low at some load is not tried again at that load for MISSED_S.

Everything here is told: load, waits, the time.  Nothing is assumed about a
model but what its own workers have shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from stoker.supervisor.congestion import workers_for
from stoker.supervisor.load_window import Rate

#: A queue may take so long to drain, or as long as a worker takes to start.
DRAIN_S: Final = 2.0
#: Nobody knows how the load will be later than that.
AHEAD_S: Final = 15.0
#: Before it was seen: how long a worker takes to start.
START_S: Final = 1.0
#: How long it is remembered that a count was too low for a load.
MISSED_S: Final = 600.0
#: While requests come nobody goes sooner than that, and who is missed within that was needed.
CALM_S: Final = 30.0
#: The same load, as far as that can be measured.
ABOUT: Final = 0.9
#: One step upwards where only the waits say that it is needed.
STEP: Final = 4


def wanted_workers(current: int, min_workers: int, max_workers: int) -> int:
    """The peer's rule: the number of workers there should be at once, given `current` ones."""
    if current < min_workers:
        return min_workers
    return min(current, max(min_workers, max_workers))


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """What a version may have and should keep to.

    Attributes:
        target_s: No more than one in a hundred requests shall wait longer for
            a worker, the batch delay not counted.
        max_idle_s: For so long a worker must not have been needed before it goes.
        batch_size: The largest batch.
    """

    min_workers: int
    max_workers: int
    target_s: float = 0.25
    max_idle_s: float = 60.0
    batch_size: int = 1


class Load(NamedTuple):
    """What one look found.

    Attributes:
        workers: Those that stay, whether they have loaded or not.
        ready: Those of them that have.
        arrived: Requests since the look before.
        rate: As it is just now.
        steady: Over longer, and therefore less by chance.
        growth_per_s: By how much the rate grows in a second.
        batch_s: How long a full batch takes; None before anything is known.
        variation: How much batches vary in time: 0 not at all, 1 as Erlang's formula takes it.
        queued: Requests nobody has begun.
        in_hand: Requests that workers hold.
        late: Of the requests begun lately, those that waited too long.
        begun: The requests begun lately.
        start_s: How long a worker takes from its start until it is ready.
        has_drained: No request waits that was there before the latest worker was ready.
        room: Workers for which there is memory.
        is_recovering: Workers died, and their places wait for another try.
    """

    workers: int
    ready: int
    arrived: int = 0
    rate: Rate = Rate(0.0, 0.0)
    steady: Rate = Rate(0.0, 0.0)
    growth_per_s: float = 0.0
    batch_s: float | None = None
    variation: float = 1.0
    queued: int = 0
    in_hand: int = 0
    late: float = 0.0
    begun: int = 0
    start_s: float | None = None
    has_drained: bool = True
    room: int = 1 << 16
    is_recovering: bool = False


class Missed(NamedTuple):
    """So many workers were too few for that load, then."""

    workers: int
    load: float
    at: float


class Need(NamedTuple):
    """So many workers would have done, then."""

    at: float
    workers: int


@dataclass(frozen=True, slots=True)
class ScalingState:
    """What is remembered from look to look.

    Attributes:
        active_at: When there was something to do the last time.
        settled_at: Since when there have been as many workers as were wanted.
        needs: Of the looks since, those that needed more than every later one.
        fewer_at: When workers were let go though requests came.
        missed: Counts that were too low.
    """

    active_at: float
    settled_at: float = -math.inf
    needs: tuple[Need, ...] = ()
    fewer_at: float | None = None
    missed: tuple[Missed, ...] = ()


class Decision(NamedTuple):
    """How many workers to have, and why in a sentence without numbers."""

    wanted: int
    reason: str
    state: ScalingState


FITS: Final = "the load fits"
BELOW: Final = "fewer than the minimum"
ABOVE: Final = "more than the maximum"
GROWS: Final = "the load needs more"
DRAINS: Final = "the queue would not drain"
WAITS: Final = "requests wait too long"
KNOWN: Final = "so few were too few for this load before"
FEWER: Final = "fewer have been enough"
IDLE: Final = "nothing came"
AT_MOST: Final = "more are needed than may be"
NO_ROOM: Final = "more are needed than there is memory for"
RECOVERS: Final = "workers died and are being replaced"


def decide(policy: ScalingPolicy, state: ScalingState, load: Load, now: float) -> Decision:
    """Decide once; called at every look.

    Returns:
        A count within the bounds, whatever the measurements say.
    """
    if load.arrived or load.in_hand or load.queued:
        state = replace(state, active_at=now)
    if load.workers < policy.min_workers:
        return _grow(policy, state, load, policy.min_workers, BELOW, now)
    if load.workers > policy.max_workers:
        return Decision(policy.max_workers, ABOVE, _unsettled(state, now))
    need, reason, state = _need(policy, state, load, now)
    if need > load.workers:
        if state.fewer_at is not None and now - state.fewer_at < 2 * CALM_S:
            # One was let go too soon.
            busy = load.rate.per_s * _worker_s(policy, load)
            state = _remember(state, Missed(load.workers, busy, now))
        if load.is_recovering:
            return Decision(load.workers, RECOVERS, _unsettled(state, now))
        return _grow(policy, state, load, need, reason, now)
    return _shrink(policy, state, load, now)


def _grow(
    policy: ScalingPolicy, state: ScalingState, load: Load, need: int, reason: str, now: float
) -> Decision:
    wanted = need
    if wanted > policy.max_workers:
        wanted, reason = policy.max_workers, AT_MOST
    # What the operator wants at least is started whatever it takes.
    room = max(load.workers + load.room, policy.min_workers)
    if wanted > room:
        wanted, reason = room, NO_ROOM
    return Decision(wanted, reason, _unsettled(state, now))


def _need(
    policy: ScalingPolicy, state: ScalingState, load: Load, now: float
) -> tuple[int, str, ScalingState]:
    """The least count for what surely comes."""
    if not (load.queued or load.in_hand or load.rate.per_s > 0):
        return 0, FITS, state
    worker_s = _worker_s(policy, load)
    start_s = load.start_s if load.start_s is not None else START_S
    ahead_per_s = min(load.growth_per_s * min(start_s, AHEAD_S), load.rate.per_s)
    surely = (_sure_per_s(load) + ahead_per_s) * worker_s
    fits = _fitting(policy, load, surely)
    need, reason = max(1, fits), GROWS
    drains = _to_drain(policy, load, worker_s, start_s)
    if drains > need:
        need, reason = drains, DRAINS
    known = _known_need(state, load.rate.per_s * worker_s / ABOUT)
    if known > need:
        need, reason = known, KNOWN
    if _is_late(load):
        missed = Missed(load.workers, load.rate.per_s * worker_s, now)
        state = _remember(state, missed)
        step = load.workers + max(1, load.workers // STEP)
        if step > need:
            need, reason = step, WAITS
    return need, reason, state


def _fitting(policy: ScalingPolicy, load: Load, busy: float) -> int:
    """Erlang's formula; waits grow with the variation of times (Allen and Cunneen's rule)."""
    target_s = policy.target_s / max(1.0, (1 + load.variation) / 2)
    return workers_for(busy, load.batch_s or 0.0, target_s, policy.max_workers)


def _sure_per_s(load: Load) -> float:
    """What comes at least; while nobody waits too long it takes more to prove that more came."""
    doubt = 1 if load.late else 2
    return max(0.0, *(r.per_s - doubt * r.noise_per_s for r in (load.rate, load.steady)))


def _worker_s(policy: ScalingPolicy, load: Load) -> float:
    """Time of a worker that one request takes, in full batches."""
    return (load.batch_s or 0.0) / policy.batch_size


def _to_drain(policy: ScalingPolicy, load: Load, worker_s: float, start_s: float) -> int:
    """How many it takes to work off what will be left when a new worker is ready."""
    if worker_s <= 0:
        return 0
    spare_per_s = load.ready / worker_s - load.rate.per_s
    left = load.queued - policy.batch_size * load.ready - spare_per_s * start_s
    if left <= 0:
        return 0
    drain_s = max(DRAIN_S, start_s)
    return math.ceil((load.rate.per_s + left / drain_s) * worker_s)


def _is_late(load: Load) -> bool:
    """More than one in a hundred waited too long, and not by chance; all workers being there."""
    if load.ready < load.workers or not load.has_drained or load.begun == 0:
        return False
    allowed = load.begun / 100
    return load.late > max(1.0, allowed + 2 * math.sqrt(allowed))


def _remember(state: ScalingState, missed: Missed) -> ScalingState:
    others = tuple(
        old
        for old in state.missed
        if old.workers != missed.workers and missed.at - old.at < MISSED_S
    )
    return replace(state, missed=(*others, missed))


def _known_need(state: ScalingState, load: float) -> int:
    return max((old.workers + 1 for old in state.missed if load >= old.load), default=0)


def _shrink(policy: ScalingPolicy, state: ScalingState, load: Load, now: float) -> Decision:
    """Fewer, if fewer have been enough for what might have come, all of the time."""
    state = replace(state, missed=tuple(m for m in state.missed if now - m.at < MISSED_S))
    if load.workers > policy.min_workers and now - state.active_at >= policy.max_idle_s:
        return Decision(policy.min_workers, IDLE, _unsettled(state, now))
    patience_s = max(policy.max_idle_s, 2 * (load.start_s or 0.0), CALM_S)
    state = _note_need(state, Need(now, _maybe_need(policy, state, load)), patience_s)
    if load.ready < load.workers:
        return Decision(load.workers, FITS, _unsettled(state, now))
    fewest = state.needs[0].workers
    if fewest >= load.workers or now - state.settled_at < patience_s:
        return Decision(load.workers, FITS, state)
    return Decision(fewest, FEWER, replace(state, fewer_at=now))


def _unsettled(state: ScalingState, now: float) -> ScalingState:
    """The number of workers is not what it is to be; what they need is seen afterwards."""
    return replace(state, settled_at=now, needs=())


def _note_need(state: ScalingState, need: Need, within_s: float) -> ScalingState:
    """Keep what tells the largest need within that time, now and at every later look."""
    kept = [
        old for old in state.needs if old.at >= need.at - within_s and old.workers > need.workers
    ]
    return replace(state, needs=(*kept, need))


def _maybe_need(policy: ScalingPolicy, state: ScalingState, load: Load) -> int:
    """The least count for what may come, as far as chance goes."""
    if not (load.queued or load.in_hand or load.rate.per_s > 0):
        return policy.min_workers
    maybe = load.rate.high * _worker_s(policy, load)
    fits = _fitting(policy, load, maybe)
    known = _known_need(state, maybe / ABOUT)
    return max(1, policy.min_workers, min(max(fits, known), policy.max_workers))
