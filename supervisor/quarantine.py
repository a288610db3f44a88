"""What becomes of the jobs a worker held when it died.

A worker's death should cost its clients nothing when it can be helped, and a
request that kills workers must not take others down with it.  So:

- a job that had been started is tried again, up to `max_attempts` times in
  all, and from then on travels alone: of a batch that died together, the
  killer dies alone and the rest are answered;
- everything the dead worker held is *suspect* until it has ended.  While a
  pool has suspects, nothing is sent ahead to busy workers: with one batch in
  hand at a time, the next death names its cause.

Not tried again: what was cut off on purpose (a worker retired with no time to
drain), what outlived `response_timeout` (it would again), and what has sent
pieces of its answer already.

Source: contracts/torchserve.md 3.5 and 8.5 for what the peer does (all or
nothing, twice or never).
"""

from __future__ import annotations

import enum

from stoker.supervisor.jobs import Job


class Loss(enum.Enum):
    """Why a worker is gone, as far as its jobs care."""

    CRASHED = "crashed"
    SILENT = "silent"
    RETIRED = "retired"


def is_tried_again(job: Job, loss: Loss, max_attempts: int, *, has_sent_pieces: bool) -> bool:
    """Whether a job that was started goes back to the queue; its attempt is counted already."""
    return loss is Loss.CRASHED and not has_sent_pieces and job.attempts < max_attempts
