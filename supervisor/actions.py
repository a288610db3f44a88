"""What the decision code wants done; the loop does it.

Actions are plain records: a test reads them, the simulation plays them, the
loop carries them out in the order in which they were decided.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from stoker.errors import StokerError
from stoker.supervisor.jobs import Job
from stoker.supervisor.versions import VersionSpec
from stoker.wire.frames import AnswerFrame, FullQueue


class Spawn(NamedTuple):
    """Start a process for this worker; later `hello`, `exited` or `spawn_failed` comes back."""

    worker_id: int
    slot: int
    spec: VersionSpec
    device: int | None


class Adopt(NamedTuple):
    """Watch over a process that a predecessor started; it comes back by itself."""

    worker_id: int
    slot: int
    pid: int
    spec: VersionSpec


class SendLoad(NamedTuple):
    """Tell a worker that said hello what to load."""

    worker_id: int
    spec: VersionSpec
    device: int | None


class SendBatch(NamedTuple):
    worker_id: int
    batch_id: int
    jobs: list[Job]


class LetGather(NamedTuple):
    """What a worker says may wait for so long."""

    worker_id: int
    for_s: float


class SendDrop(NamedTuple):
    worker_id: int
    job_ids: list[bytes]


class SendLeave(NamedTuple):
    worker_id: int


class Abort(NamedTuple):
    """SIGABRT, so that the log shows where the worker was."""

    worker_id: int
    reason: str


class Kill(NamedTuple):
    """SIGKILL."""

    worker_id: int
    reason: str


class Forward(NamedTuple):
    """Pass an answer frame on to the frontend it is for."""

    frontend_id: bytes
    frame: AnswerFrame


class Refuse(NamedTuple):
    """End a job towards its client with an error of ours."""

    job_id: bytes
    error: StokerError


class Retry(NamedTuple):
    """Tell a job's frontend that a worker did not answer it, and that it is tried again."""

    job_id: bytes
    attempts: int


class Announce(NamedTuple):
    """Tell every frontend that a queue is full."""

    queue: FullQueue


class Resolve(NamedTuple):
    """Answer a management call that waited."""

    call: Any
    outcome: dict[str, Any] | StokerError


class Release(NamedTuple):
    """An unregistered version's last worker is gone; its archive may go too."""

    spec: VersionSpec


class Note(NamedTuple):
    """A log event: level, a sentence without numbers, then facts."""

    level: str
    event: str
    facts: dict[str, Any]


Action = (
    Spawn
    | Adopt
    | SendLoad
    | SendBatch
    | LetGather
    | SendDrop
    | SendLeave
    | Abort
    | Kill
    | Forward
    | Refuse
    | Retry
    | Announce
    | Resolve
    | Release
    | Note
)
