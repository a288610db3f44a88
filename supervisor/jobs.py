r"""One job's life.

Everything that moves a job is in `JOB_MOVES`; a pair that is missing there is
a bug in us.  A job ends exactly once: the four ends have no way out.

    QUEUED --send--> SENT --complete--> COMPLETED
      ^   \           | \---fail------> FAILED
      |    \--fail----|---------------> FAILED
      |     \-expire--+---------------> EXPIRED      (of what is in a worker's hand, only
      |      \-cancel-+---------------> CANCELLED     by a deadline that is the client's)
      +---give back---+               (not started, or tried again)
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final, Protocol

from stoker.errors import StokerError
from stoker.wire.frames import FRONTEND_ID_BYTES, JobFlag

#: As plain ints: `&` with a flag costs a microsecond.
ALONE: Final = int(JobFlag.ALONE)
ENDS_IN_HAND: Final = int(JobFlag.ENDS_IN_HAND)
SENT_AGAIN: Final = int(JobFlag.SENT_AGAIN)
TAKES_TURNS: Final = int(JobFlag.TAKES_TURNS)
WORKFLOW: Final = int(JobFlag.WORKFLOW)
OR_WORKFLOW: Final = int(JobFlag.OR_WORKFLOW)
#: Of a job that is no client's but a node's call in a workflow: its id, and an answer
#: frame or the error that ends it.
Heard = tuple[bytes, bytes | StokerError]


class JobState(enum.Enum):
    __hash__ = object.__hash__  # Enum's own is Python code, and every move pays it

    QUEUED = "queued"
    SENT = "sent"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class JobEvent(enum.Enum):
    __hash__ = object.__hash__  # Enum's own is Python code, and every move pays it

    SEND = "send"
    GIVE_BACK = "give back"
    COMPLETE = "complete"
    FAIL = "fail"
    EXPIRE = "expire"
    CANCEL = "cancel"


JOB_MOVES: Final[dict[JobState, dict[JobEvent, JobState]]] = {
    JobState.QUEUED: {
        JobEvent.SEND: JobState.SENT,
        JobEvent.FAIL: JobState.FAILED,
        JobEvent.EXPIRE: JobState.EXPIRED,
        JobEvent.CANCEL: JobState.CANCELLED,
    },
    JobState.SENT: {
        JobEvent.GIVE_BACK: JobState.QUEUED,
        JobEvent.COMPLETE: JobState.COMPLETED,
        JobEvent.FAIL: JobState.FAILED,
        JobEvent.EXPIRE: JobState.EXPIRED,
        JobEvent.CANCEL: JobState.CANCELLED,
    },
    JobState.COMPLETED: {},
    JobState.FAILED: {},
    JobState.EXPIRED: {},
    JobState.CANCELLED: {},
}


class ImpossibleMove(AssertionError):
    """This should never happen; it is a bug in stoker."""


class JobPool(Protocol):
    """The pool a job is in, as the engine needs it who knows only the job; see `pools.py`."""

    model: str
    version: str
    due_at: float | None

    def cancel(self, job: Job) -> None: ...

    def dispatch(self, now: float) -> None: ...

    def turns_full(self) -> bool: ...

    def announce_full(self, now: float, *, is_default: bool) -> None: ...


class Asked:
    """What came of the jobs that asked for a version in one way: by its name, or by none."""

    __slots__ = ("latency_s", "queue_s", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.latency_s = 0.0
        self.queue_s = 0.0


class Job:
    """One request's unit of work.

    Attributes:
        deadline: Monotonic instant after which nobody wants to wait any more.
        ends_in_hand: The deadline is the client's own and holds also while a
            worker works on the job; else `response_timeout` bounds that.
        arrived_at: When it was accepted; kept when the job is given back, so
            its batch delay and its place in the order are not started anew.
        sequence: Grows with arrival over the whole supervisor.
        is_loner: Never in a batch with others: it asked for that, or it was
            in a worker's hand when that died.
        is_sent_again: A dead supervisor had accepted it before.
        is_suspect: A worker died with it; see quarantine.
        attempts: Times that a worker had started it and did not answer.
        deaths: How many of those workers died.
        asked: Where it is counted; see tally.
        pool: Whose queue it is in or came from.
        worker_id: Who holds it while it is SENT.
    """

    __slots__ = (
        "arrived_at",
        "asked",
        "attempts",
        "deadline",
        "deaths",
        "ends_in_hand",
        "is_loner",
        "is_sent_again",
        "is_suspect",
        "job_id",
        "payload",
        "pool",
        "sequence",
        "state",
        "worker_id",
    )

    def __init__(
        self,
        job_id: bytes,
        payload: bytes,
        deadline: float,
        arrived_at: float,
        sequence: int,
        flags: int = 0,
        asked: Asked | None = None,
    ) -> None:
        self.job_id = job_id
        self.asked = asked
        self.payload = payload
        self.deadline = deadline
        self.arrived_at = arrived_at
        self.sequence = sequence
        self.is_loner = self.ends_in_hand = self.is_sent_again = False
        if flags:
            self.is_loner = bool(flags & ALONE)
            self.ends_in_hand = bool(flags & ENDS_IN_HAND)
            self.is_sent_again = bool(flags & SENT_AGAIN)
        self.is_suspect = False
        self.attempts = self.deaths = 0
        self.state = JobState.QUEUED
        self.pool: JobPool | None = None
        self.worker_id = -1

    @property
    def frontend_id(self) -> bytes:
        return self.job_id[:FRONTEND_ID_BYTES]

    def move(self, event: JobEvent) -> None:
        """Raises ImpossibleMove if the table knows no such move."""
        try:
            self.state = JOB_MOVES[self.state][event]
        except KeyError:
            raise ImpossibleMove(f"a {self.state.value} job cannot {event.value}") from None

    @property
    def has_ended(self) -> bool:
        return not JOB_MOVES[self.state]


def deadlines_in_hand(jobs: Sequence[Job]) -> list[float | None] | None:
    """What their worker must know of their deadlines; for most batches nothing."""
    for job in jobs:
        if job.ends_in_hand:
            return [each.deadline if each.ends_in_hand else None for each in jobs]
    return None
