"""One worker process's life.

Everything that moves a worker is in `WORKER_MOVES`.  An event that is missing
there is a bug in us or a worker that lies; the loop logs it and treats the
worker as lost.

    STARTING --hello--> LOADING --loaded--> READY <==sent/answered==> BUSY <=stall/resume=> STALLED
        |                  |                  |                         |                    |
        |                  |                  +--------retire-----------+--------------------+
        |                  |                                                                 v
        |                  |                                                             DRAINING
        +------ kill ------+--- load failed, kill ---> DYING <--- kill --- from these four
    any of them --exited--> GONE

AWAITED --back--> READY: a worker whose supervisor died, and whose way to us is
not over; it may be at work, so only `response_timeout` bounds that, or
`startup_timeout` while it loads.

STALLED means that its batch took longer than `response_timeout` and that its
handler was told so (`context.cancelled`): it gets nothing more until it comes
back, and is killed if it does not.

DYING means that a signal is on its way, or that it said it will exit: it gets
nothing more, but an answer it still gives is taken.

Source: contracts/torchserve.md 8.5 for what the peer's states mean, design section 4.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from typing import Final

from stoker.supervisor.jobs import ImpossibleMove, Job

#: From here on the way to a worker is small beside what it does.
FAST_S: Final = 0.001


class WorkerState(enum.Enum):
    __hash__ = object.__hash__  # Enum's own is Python code, and every move pays it

    AWAITED = "awaited"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"
    STALLED = "stalled"
    DRAINING = "draining"
    DYING = "dying"
    GONE = "gone"


class WorkerEvent(enum.Enum):
    __hash__ = object.__hash__  # Enum's own is Python code, and every move pays it

    BACK = "back"
    HELLO = "hello"
    LOADED = "loaded"
    LOAD_FAILED = "load failed"
    SENT = "sent"
    ANSWERED = "answered"
    STALL = "stall"
    RESUME = "resume"
    RETIRE = "retire"
    KILL = "kill"
    EXITED = "exited"


_S, _E = WorkerState, WorkerEvent

WORKER_MOVES: Final[dict[WorkerState, dict[WorkerEvent, WorkerState]]] = {
    _S.AWAITED: {_E.BACK: _S.READY, _E.KILL: _S.DYING, _E.EXITED: _S.GONE},
    _S.STARTING: {_E.HELLO: _S.LOADING, _E.KILL: _S.DYING, _E.EXITED: _S.GONE},
    _S.LOADING: {
        _E.LOADED: _S.READY,
        _E.LOAD_FAILED: _S.DYING,
        _E.KILL: _S.DYING,
        _E.EXITED: _S.GONE,
    },
    _S.READY: {
        _E.SENT: _S.BUSY,
        _E.RETIRE: _S.DRAINING,
        _E.KILL: _S.DYING,
        _E.EXITED: _S.GONE,
    },
    _S.BUSY: {
        _E.SENT: _S.BUSY,
        _E.ANSWERED: _S.READY,
        _E.STALL: _S.STALLED,
        _E.RETIRE: _S.DRAINING,
        _E.KILL: _S.DYING,
        _E.EXITED: _S.GONE,
    },
    _S.STALLED: {
        _E.RESUME: _S.BUSY,
        _E.RETIRE: _S.DRAINING,
        _E.KILL: _S.DYING,
        _E.EXITED: _S.GONE,
    },
    _S.DRAINING: {_E.ANSWERED: _S.DRAINING, _E.KILL: _S.DYING, _E.EXITED: _S.GONE},
    _S.DYING: {_E.KILL: _S.DYING, _E.EXITED: _S.GONE},
    _S.GONE: {},
}


@dataclass(slots=True, eq=False)
class Batch:
    """Jobs sent to a worker together.

    Attributes:
        ended: How many of them ended before the batch was begun.
        has_sent_pieces: It has been answered in part.
    """

    batch_id: int
    jobs: list[Job]
    ended: int = 0
    has_sent_pieces: bool = False

    @property
    def waiting(self) -> int:
        return len(self.jobs) - self.ended


class Worker:
    """One OS process running one handler of one version.

    Attributes:
        worker_id: Unique for every process ever started; the slot's number
            stays when a process is replaced.
        in_hand: Batches sent and not finished, oldest first.  Only the first
            has been started, as a worker works in order; but see
            `concurrent_pools`.
        quiet_since: When the worker last gave a sign of life that counts for
            its current deadline (spawned, took up a batch, sent a piece).
        batch_since: When the first batch in hand was started.
        stalled_at: When its handler was told to give up the first batch.
        is_awaited: A predecessor's, and it has not said a word to us.
        alone_since: When somebody first missed it, of one that is awaited.
        jobs_done: Requests it has worked on.
        memory_bytes: As last measured; 0 before.
        service_time_s: Smoothed time of one batch; None before the first.
        includes_trip: The batch it works on was sent when it was idle, so its time holds
            the way there and back, and the wait for a processor.
    """

    __slots__ = (
        "alone_since",
        "batch_since",
        "device",
        "drain_until",
        "in_hand",
        "includes_trip",
        "is_awaited",
        "is_told_to_leave",
        "jobs_done",
        "loaded_at",
        "memory_bytes",
        "pid",
        "quiet_since",
        "service_time_s",
        "signalled_at",
        "slot",
        "stalled_at",
        "started_at",
        "state",
        "was_aborted",
        "why_killed",
        "worker_id",
    )

    def __init__(self, worker_id: int, slot: int, device: int | None, now: float) -> None:
        self.worker_id = worker_id
        self.slot = slot
        self.device = device
        self.state = WorkerState.STARTING
        self.pid = -1
        self.started_at = now
        self.quiet_since = now
        self.batch_since = now
        self.loaded_at: float | None = None
        self.in_hand: deque[Batch] = deque()
        self.stalled_at: float | None = None
        self.jobs_done = 0
        self.memory_bytes = 0
        self.service_time_s: float | None = None
        self.includes_trip = False
        self.drain_until: float | None = None
        self.is_awaited = False
        self.alone_since = now
        self.is_told_to_leave = False
        self.signalled_at: float | None = None
        self.was_aborted = False
        self.why_killed = ""

    def move(self, event: WorkerEvent) -> None:
        """Raises ImpossibleMove if the table knows no such move."""
        try:
            self.state = WORKER_MOVES[self.state][event]
        except KeyError:
            raise ImpossibleMove(f"a {self.state.value} worker cannot {event.value}") from None

    def can(self, event: WorkerEvent) -> bool:
        return event in WORKER_MOVES[self.state]

    @property
    def may_hold_unknown_jobs(self) -> bool:
        """A predecessor may have given it jobs, and it has not said which it answered."""
        return self.is_awaited and self.loaded_at is not None

    @property
    def is_idle(self) -> bool:
        return self.state is WorkerState.READY

    def bound_service_time(self, seconds: float) -> None:
        """It was no longer than this: counts where nothing, or nothing shorter, is known.

        Else a fast handler would be taken for a slow one as soon as its processor is busy,
        get little ahead, answer little at a time, and keep the processor busy.
        """
        known = self.service_time_s
        if known is None or seconds < known or known >= FAST_S:
            self.note_service_time(seconds)

    def note_service_time(self, seconds: float) -> None:
        """Smooth over about eight batches: fast enough to follow a load change."""
        known = self.service_time_s
        self.service_time_s = seconds if known is None else known + (seconds - known) / 8
