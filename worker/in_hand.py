"""The batch being handled, as its handler may see it and feed it.

A handler that streams sends pieces before it returns; one that cares asks
whether anybody still wants the answer.  Both may happen on a thread of the
handler's own while the worker's only thread waits inside the handler, so the
few methods handlers reach take turns by a lock.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from time import monotonic
from typing import Any

from stoker.wire.frames import Reply, WorkJob
from stoker.worker.answers import AnswerRow, group_rows
from stoker.worker.channel import Channel


class BatchInHand:
    """One object for the whole life of a worker; `begin` and `end` mark batches.

    Args:
        response_timeout_s: How long the worker may be silent over a batch.
    """

    def __init__(self, channel: Channel, response_timeout_s: float) -> None:
        self._channel = channel
        self._response_timeout_s = response_timeout_s
        self._lock = threading.Lock()
        self._batch_id = 0
        self._jobs: Sequence[WorkJob] = ()
        self._latest: float | None = None
        self._sent_at = 0.0

    def __deepcopy__(self, memo: dict[int, Any]) -> BatchInHand:
        # A copied context still belongs to the same worker.
        return self

    def begin(self, batch_id: int, jobs: Sequence[WorkJob], latest: float | None = None) -> None:
        """`latest`: when the last of the clients gives up; None if one of them has not said."""
        self._batch_id = batch_id
        self._latest = latest
        self._sent_at = 0.0
        self._jobs = jobs

    def narrow(self, jobs: Sequence[WorkJob]) -> None:
        """The handler gets only these of the batch, and counts from 0."""
        with self._lock:
            self._jobs = jobs

    def end(self) -> None:
        """After this, a stray thread of the handler can send nothing more."""
        with self._lock:
            self._jobs = ()

    def is_cancelled(self, index: int | None = None) -> bool:
        """Has the client of one request left, or without `index`: all clients?"""
        with self._lock:
            if not self._jobs:
                return False
            self._channel.look()
            dropped = self._channel.dropped
            if not dropped:
                return False
            jobs = self._jobs if index is None else [self._jobs[index]]
            return all(job.job_id in dropped for job in jobs)

    def deadline(self) -> float | None:
        """When nobody wants these answers any more: the clients, or who watches over workers.

        None between batches.
        """
        with self._lock:
            if not self._jobs:
                return None
            quiet_since = max(self._channel.started_at, self._sent_at)
            until = quiet_since + self._response_timeout_s
            return until if self._latest is None else min(until, self._latest)

    def send_rows(self, rows: list[AnswerRow]) -> None:
        """Send pieces of answers now.  Raises RuntimeError between batches."""
        with self._lock:
            if not self._jobs:
                raise RuntimeError("no batch is being handled: its handler has returned already")
            self._reply(rows)
            self._sent_at = monotonic()

    def _reply(self, rows: list[AnswerRow]) -> None:
        self._channel.reply_part(Reply(self._batch_id, False, [], group_rows(rows)))
