"""Every message between our processes, as a record, with its picture.

One message is one flat msgpack array whose first element is the `Kind`.
Rows of repeated fields follow flat, not nested: a frame of three jobs is one
array of 1 + 3 * 6 elements.  `[x ...]*` below means "repeated".

    frontend -> supervisor
        FRONTEND_HELLO | protocol | pid | incarnation
        SUBMIT         | [job_id | model | version? | deadline | flags | payload]*
        CANCEL         | [job_id]*
        CALL           | call_id | verb | arguments{}

    frontend -> supervisor, first and only on the stream that the answers come back on
        FRONTEND_LISTENS | protocol | frontend_id

    supervisor -> frontend
        WELCOME        | protocol | incarnation
        ANSWERS        | [answer frame]*          opaque to the supervisor
        REFUSED        | [job_id | code | message | details{}]*
        RETRIED        | [job_id | attempts]*      workers had it, and did not answer
        RESULT         | call_id | code? | message | value{} or details{}
        FULL           | [model | version | is_default | place_every_s | retry_after_s]*

    supervisor -> worker
        LOAD           | spec{}
        WORK           | [batch_id | deadlines? | n | n * (job_id | payload)]*
        DROP           | [job_id]*                 these answers are not wanted any more
        LEAVE          |                           finish what is in hand and exit

    worker -> supervisor
        WORKER_HELLO   | protocol | worker_id | token | pid
        WORKER_BACK    | protocol | worker_id | token | pid | info{}
        KEPT           | like REPLIES, right after WORKER_BACK
        LOADED         | info{}
        LOAD_FAILED    | code | message | last_line
        SEQUENCES_ENDED | [name]*                  before the reply that ends the last job of each
        MEASUREMENTS   | [type | name | unit | labels | values | number | counts]*
        REPLIES        | [batch_id | is_last | ended ids | n | n * (frontend_id | answer frame)]*

A job id is 16 bytes, `frontend_id` (8, the sender's incarnation and its zmq
routing id) followed by 8 random ones, so a worker can group answers by
frontend without being told, and cannot guess the id of another's job.
`ended ids` are joined 16-byte ids: all the supervisor needs to know of an
answer.  Deadlines are seconds on CLOCK_MONOTONIC; those of a batch are left
out when none of its jobs has one that holds in a worker's hand, else there are
n, null for a job without.  `payload` and `answer frame` are bytes that only the
two ends read; `payloads.py` draws them.  For an answer frame of which bodies are lent
(`lent_bodies.py`) stands [answer frame], and the open file comes along with the
message; several come in the order of their frames.  For one whose file was lost on
the way stands [answer frame | ""].

Source: design section 3.
"""

from __future__ import annotations

import enum
from typing import Any, Final, NamedTuple, Protocol

PROTOCOL: Final = 2

#: Ends of the buckets of a handler's histogram: those of the peer.
HISTOGRAM_BOUNDS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0),
)

FRONTEND_ID_BYTES: Final = 8
JOB_ID_BYTES: Final = 16
#: How the ids begin of jobs that the supervisor makes for the nodes of workflows: no
#: frontend's begins so, because zmq keeps routing ids with a zero byte for itself.
CALL_MARK: Final = 0
#: Coalesced jobs leave at once beyond this, far below the largest frame.
MAX_SUBMIT_BYTES: Final = 16 << 20


class Kind(enum.IntEnum):
    """First element of every frame."""

    FRONTEND_HELLO = 1
    SUBMIT = 2
    CANCEL = 3
    CALL = 4
    FRONTEND_LISTENS = 5

    WELCOME = 16
    ANSWERS = 17
    REFUSED = 18
    RESULT = 19
    FULL = 20
    RETRIED = 21

    LOAD = 32
    WORK = 33
    DROP = 34
    LEAVE = 35

    WORKER_HELLO = 48
    LOADED = 49
    LOAD_FAILED = 50
    REPLIES = 51
    MEASUREMENTS = 52
    WORKER_BACK = 53
    KEPT = 54
    SEQUENCES_ENDED = 55


class JobFlag(enum.IntFlag):
    """What the supervisor must know of a job beyond its envelope."""

    NONE = 0
    #: Never batched with others: a handler's question about itself, an explanation.
    ALONE = 1
    #: The deadline is the client's own: it holds also while a worker works on the
    #: job.  Any other bounds only the wait for a worker.
    ENDS_IN_HAND = 2
    #: Another supervisor was given it before, and may have had it worked on.
    SENT_AGAIN = 4
    #: Where no version is named the versions take turns, instead of the default one.
    TAKES_TURNS = 8
    #: `model` names a workflow; a version of "" is none.
    WORKFLOW = 16
    #: Where there is no such model, there may be such a workflow.
    OR_WORKFLOW = 32


class AnswerKind(enum.IntEnum):
    #: The whole answer, or the last piece of a streamed one.
    FINAL = 0
    #: A piece of a streamed answer; status and headers count in the first only.
    CHUNK = 1
    ERROR = 2
    #: A workflow's answer of several nodes; its body is packed [name | answer frame]*.
    PARTS = 3


class Divided(Protocol):
    """An answer frame of which bodies lie elsewhere; see `lent_bodies.py`."""

    def __len__(self) -> int: ...


AnswerFrame = bytes | Divided


# -- frontend -> supervisor ---------------------------------------------------


class FrontendHello(NamedTuple):
    """Sent on connecting and then once a second; answered with Welcome.

    `incarnation` is the supervisor's that the frontend knows, b"" for none: what it
    says before it knows this one is meant for another and said again.
    """

    protocol: int
    pid: int
    incarnation: bytes = b""


class FrontendListens(NamedTuple):
    """Opens the way back, before the first hello; see `downlink.py`."""

    protocol: int
    frontend_id: bytes


class SubmittedJob(NamedTuple):
    job_id: bytes
    model: str
    version: str | None
    deadline: float
    flags: int
    payload: bytes


class Submit(NamedTuple):
    jobs: list[SubmittedJob]


class Cancel(NamedTuple):
    job_ids: list[bytes]


class Call(NamedTuple):
    """A management verb; `supervisor/control.py` documents verbs, arguments and values."""

    call_id: int
    verb: str
    arguments: dict[str, Any]


# -- supervisor -> frontend ---------------------------------------------------


class Welcome(NamedTuple):
    """`incarnation` differs for every life of the supervisor."""

    protocol: int
    incarnation: bytes


class Answers(NamedTuple):
    frames: list[AnswerFrame]


class RefusedJob(NamedTuple):
    job_id: bytes
    code: str
    message: str
    details: dict[str, Any]


class Refused(NamedTuple):
    jobs: list[RefusedJob]


class RetriedJob(NamedTuple):
    job_id: bytes
    attempts: int


class Retried(NamedTuple):
    """Nobody has lost anything, but who waits may tell how often it was tried."""

    jobs: list[RetriedJob]


class Result(NamedTuple):
    """`code` is None for success, and `value` holds the outcome; else `value` holds the details."""

    call_id: int
    code: str | None
    message: str
    value: dict[str, Any]


class FullQueue(NamedTuple):
    """A version's queue has just taken its last job; nobody answers this.

    Attributes:
        is_default: Jobs that name no version go there, too.
        place_every_s: About how often a place becomes free; 0.0 if that is not known.
        retry_after_s: When somebody who was refused may find room.
    """

    model: str
    version: str
    is_default: bool
    place_every_s: float
    retry_after_s: int


class Full(NamedTuple):
    queues: list[FullQueue]


# -- supervisor -> worker -----------------------------------------------------


class Load(NamedTuple):
    """What to load; the keys of `spec` are the fields of `wire.loading.LoadSpec`."""

    spec: dict[str, Any]


class WorkJob(NamedTuple):
    job_id: bytes
    payload: bytes


class WorkBatch(NamedTuple):
    """`deadlines`: one for each job, None for a job without; None if no job has one."""

    batch_id: int
    jobs: list[WorkJob]
    deadlines: list[float | None] | None = None


class Work(NamedTuple):
    batches: list[WorkBatch]


class Drop(NamedTuple):
    job_ids: list[bytes]


class Leave(NamedTuple):
    pass


# -- worker -> supervisor -----------------------------------------------------


class WorkerHello(NamedTuple):
    """First word of a worker; `token` proves that we started it."""

    protocol: int
    worker_id: int
    token: bytes
    pid: int


class Loaded(NamedTuple):
    info: dict[str, Any]


class LoadFailed(NamedTuple):
    """`code` is `load_failed` or `load_out_of_memory`; the traceback is in the log."""

    code: str
    message: str
    last_line: str


class Group(NamedTuple):
    """Answers of one batch that go to one frontend."""

    frontend_id: bytes
    frame: AnswerFrame


class Reply(NamedTuple):
    """Progress of one batch: some answers, and whether it is done.

    An intermediate result (streaming) has `is_last` False and may end no job.
    """

    batch_id: int
    is_last: bool
    ended: list[bytes]
    groups: list[Group]


class Replies(NamedTuple):
    replies: list[Reply]


class Measurement(NamedTuple):
    """One series of a handler's metric, since the last message.

    Attributes:
        kind: counter, gauge or histogram.
        number: What was added; the latest value of a gauge; the sum of a histogram.
        counts: Of a histogram, by bucket.
    """

    kind: str
    name: str
    unit: str
    labels: list[str]
    values: list[str]
    number: float
    counts: list[int]


class Measurements(NamedTuple):
    """About once a second, if there is something to say."""

    rows: list[Measurement]


class SequencesEnded(NamedTuple):
    """A handler has ended these sequences; what comes under their names is new."""

    names: list[str]


class WorkerBack(NamedTuple):
    """First word of a worker that has lost its supervisor, to the successor.

    `info` is as in Loaded; where the version has sequences also `sequences`, the rows
    [name | began_at | quiet_since] of those that live in this worker.
    """

    protocol: int
    worker_id: int
    token: bytes
    pid: int
    info: dict[str, Any]


class Kept(NamedTuple):
    """What a worker has answered lately: nobody knows how much of it reached a frontend.

    It holds nothing else: what it had not begun it has given up.  A reply without
    groups is of a batch whose answers are not there any more.
    """

    replies: list[Reply]


FromFrontend = FrontendHello | Submit | Cancel | Call
ToFrontend = Welcome | Answers | Refused | Retried | Result | Full
ToWorker = Load | Work | Drop | Leave
FromWorker = (
    WorkerHello | WorkerBack | Kept | Loaded | LoadFailed | Replies | SequencesEnded | Measurements
)
Message = FromFrontend | FrontendListens | ToFrontend | ToWorker | FromWorker
