"""What becomes of the jobs a worker held when it died, and of one that kills workers.

A worker's death should cost its clients nothing when it can be helped, and a
request that kills workers must not take others down with it.  So:

- a job that had been started is tried again, up to `max_attempts` times in
  all, and from then on travels alone: of a batch that died together, the
  killer dies alone and the rest are answered.  Halving the batch would need
  one death for each halving; alone, a killer costs two, whatever the size of
  its batch, and a death (a process, a model's load) is dearer than a few
  small batches;
- everything the dead worker held is *suspect* until it has ended.  While a
  pool has suspects, nothing is sent ahead to busy workers: with one batch in
  hand at a time, the next death names its cause;
- who was alone when a worker died, and had seen one die before, is *convicted*:
  for a while the same content is refused, without another death.

Not tried again: what was cut off on purpose (a worker retired with no time to
drain), what was silent beyond `response_timeout` alone (it would again), what
has sent pieces of its answer already, and anything of a handler that may not
see a request twice.

Source: contracts/torchserve.md 3.5 and 8.5 for what the peer does (all or
nothing, twice or never).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from stoker.supervisor.jobs import Job

#: Convictions that one version remembers; the oldest goes first.
MAX_CONVICTIONS: Final = 256
#: Deaths it takes to be convicted.
DEATHS_TO_CONVICT: Final = 2


class Loss(enum.Enum):
    """Why a worker is gone, as far as its jobs care."""

    CRASHED = "crashed"
    #: Killed by somebody who is neither us nor, as far as one can know, the
    #: kernel: that says nothing about what it was working on.
    SHOT = "shot"
    SILENT = "silent"
    RETIRED = "retired"


class Verdict(enum.Enum):
    """What becomes of a job that a worker had started and did not answer."""

    AGAIN = "again"
    FAILED = "failed"
    CONVICTED = "convicted"


def judge(
    job: Job, loss: Loss, max_attempts: int, *, was_alone: bool, has_sent_pieces: bool
) -> Verdict:
    """Whether such a job is tried again; its latest attempt, and death, is counted already."""
    if loss is Loss.RETIRED or has_sent_pieces:
        return Verdict.FAILED
    if job.attempts < max_attempts and not (loss is Loss.SILENT and was_alone):
        return Verdict.AGAIN
    is_proof = loss in (Loss.CRASHED, Loss.SILENT)
    if is_proof and was_alone and job.deaths >= DEATHS_TO_CONVICT:
        return Verdict.CONVICTED
    return Verdict.FAILED


class Content(NamedTuple):
    """What a request says, whoever asks and whenever: its size, and a hash of it."""

    size: int
    digest: bytes


class Contents(Protocol):
    """Reads requests, which we do not: asked only about those that are suspected.

    `size` and `read` answer None for what has no content that could be read in time.
    """

    def size(self, job_id: bytes, payload: bytes) -> int | None: ...

    def read(self, job_id: bytes, payload: bytes) -> Content | None: ...

    def headers(self, payload: bytes) -> Sequence[str]:
        """name, value, name, value ...; asked where requests belong to sequences.

        Nothing of what is no request: its worker will say so.
        """
        ...


@dataclass(slots=True)
class Conviction:
    """A content that killed workers.

    Attributes:
        cause: How the last of them died.
        deaths: How many died.
        refused: Requests with it that were turned away since.
    """

    content: Content
    cause: str
    deaths: int
    since: float
    until: float
    refused: int = 0


class Quarantine:
    """Contents that killed workers of one version, for a while.

    Args:
        keep_s: How long one is remembered; 0 turns it off.

    Attributes:
        convictions: By content; while there is none, looking costs nothing.
    """

    __slots__ = ("_contents", "_keep_s", "_sizes", "convictions")

    def __init__(self, keep_s: float, contents: Contents | None) -> None:
        self.convictions: dict[Content, Conviction] = {}
        self._keep_s = keep_s
        self._contents = contents
        self._sizes: set[int] = set()

    def convict(self, job: Job, cause: str, now: float) -> Conviction | None:
        """Remember what a job says; None if that cannot be known or is not wanted."""
        if self._contents is None or self._keep_s <= 0:
            return None
        content = self._contents.read(job.job_id, job.payload)
        if content is None:
            return None
        conviction = Conviction(content, cause, job.deaths, now, now + self._keep_s)
        self.convictions.pop(content, None)
        self.convictions[content] = conviction
        while len(self.convictions) > MAX_CONVICTIONS:
            del self.convictions[next(iter(self.convictions))]
        self._measure()
        return conviction

    def find(self, job_id: bytes, payload: bytes, now: float) -> Conviction | None:
        """The conviction of what this request says; it counts as refused.

        Most requests differ from the few convicted ones in size, and are not
        read further.
        """
        contents = self._contents
        if contents is None or contents.size(job_id, payload) not in self._sizes:
            return None
        content = contents.read(job_id, payload)
        conviction = None if content is None else self.convictions.get(content)
        if conviction is None or conviction.until <= now:
            return None
        conviction.refused += 1
        return conviction

    def expire(self, now: float) -> list[Conviction]:
        """Forget, and return, those whose time is up."""
        ended = [each for each in self.convictions.values() if each.until <= now]
        for conviction in ended:
            del self.convictions[conviction.content]
        if ended:
            self._measure()
        return ended

    def clear(self) -> list[Conviction]:
        """Somebody looked after the version: all get another chance."""
        ended = list(self.convictions.values())
        self.convictions.clear()
        self._sizes.clear()
        return ended

    def _measure(self) -> None:
        self._sizes = {content.size for content in self.convictions}
