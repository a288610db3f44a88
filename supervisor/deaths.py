"""A worker's end, in words: for the client, for `describe` and for the log.

Source: contracts/torchserve.md 1.6 and 8.5 for what clients are told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from stoker.errors import NoWorker, StokerError, WorkerDied, WorkerOutOfMemory
from stoker.supervisor.quarantine import Loss
from stoker.supervisor.versions import Failure, VersionSpec

#: Why we kill, where it matters afterwards.
RETIRED: Final = "retired"
SILENT: Final = "no answer within response_timeout"


class Exit(NamedTuple):
    """How a process ended.

    Attributes:
        words: `exit 3`, `SIGSEGV`.
        is_oom_like: The kernel's memory killer is likely.
        last_line: The last it wrote.
        likely: What probably caused it, for a person; "" when nobody knows.
        is_shot: Killed by somebody else than us or the kernel.
    """

    words: str
    is_oom_like: bool = False
    last_line: str = ""
    likely: str = ""
    is_shot: bool = False


@dataclass(frozen=True, slots=True)
class Death:
    """The end of a worker that nobody wanted.

    Attributes:
        jobs_again: Jobs that went back to the queue with it.
        jobs_failed: Jobs that were told.
    """

    at: float
    worker: int
    pid: int
    exit: str
    cause: str
    jobs_again: int = 0
    jobs_failed: int = 0


def cause_of(why_killed: str, how: Exit) -> str:
    """Our own reason beats any guess."""
    return why_killed or how.likely or ("out of memory" if how.is_oom_like else "crash")


def loss_of(why_killed: str, how: Exit) -> Loss:
    if why_killed == RETIRED:
        return Loss.RETIRED
    if why_killed == SILENT:
        return Loss.SILENT
    return Loss.SHOT if how.is_shot and not why_killed else Loss.CRASHED


def error_of(spec: VersionSpec, why_killed: str, how: Exit, attempts: int) -> StokerError:
    """What the client of a job is told that was in hand and is not tried again."""
    facts = {"model": spec.model, "version": spec.version}
    if why_killed == RETIRED:
        return NoWorker("The worker was stopped before it could answer.", **facts)
    cause = cause_of(why_killed, how)
    is_oom_like = how.is_oom_like and not why_killed
    kind = WorkerOutOfMemory if is_oom_like else WorkerDied
    return kind(
        f"The worker died with the request in hand ({how.words}: {cause}); "
        f"attempt {attempts} of {max(attempts, spec.max_attempts)}.",
        reason="exit",
        exit=how.words,
        likely=cause,
        attempts=attempts,
        **facts,
    )


def silence_of(spec: VersionSpec, attempts: int) -> StokerError:
    """The handler was given up; its worker may yet come back."""
    return WorkerDied(
        f"The handler did not answer within response_timeout; "
        f"attempt {attempts} of {max(attempts, spec.max_attempts)}.",
        model=spec.model,
        version=spec.version,
        reason="timeout",
        likely=SILENT,
        attempts=attempts,
    )


def end_of_load(why_killed: str, how: Exit) -> Failure:
    """Of a worker that ended without a word about why it cannot load."""
    words = why_killed or how.words
    # Of one that was killed, the last line is only where it stood.
    last_line = words if why_killed else how.last_line or words
    is_oom_like = how.is_oom_like and not why_killed
    return Failure(f"The worker ended while loading: {words}.", last_line, is_oom_like)


def end_of_tries(why_killed: str, how: Exit, tried_for_s: float) -> Failure:
    """Of a version whose workers did nothing but die."""
    message = (
        f"Its workers kept dying for {tried_for_s:.0f} s, "
        f"at last: {how.words}, {cause_of(why_killed, how)}."
    )
    return Failure(message, how.last_line or how.words, how.is_oom_like)
