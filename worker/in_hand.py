"""The batch being handled, as its handler may see it and feed it.

A handler that streams sends pieces before it returns; one that cares asks
whether anybody still wants the answer.  Both may happen on a thread of the
handler's own while the worker's only thread waits inside the handler, so the
few methods handlers reach take turns by a lock.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from stoker.wire.frames import Reply, WorkJob
from stoker.worker.answers import AnswerRow, group_rows
from stoker.worker.channel import Channel


class BatchInHand:
    """One object for the whole life of a worker; `begin` and `end` mark batches."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._batch_id = 0
        self._jobs: Sequence[WorkJob] = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> BatchInHand:
        # A copied context still belongs to the same worker.
        return self

    def begin(self, batch_id: int, jobs: Sequence[WorkJob]) -> None:
        self._batch_id = batch_id
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

    def send_rows(self, rows: list[AnswerRow]) -> None:
        """Send pieces of answers now.  Raises RuntimeError between batches."""
        with self._lock:
            if not self._jobs:
                raise RuntimeError("no batch is being handled: its handler has returned already")
            self._channel.reply_part(Reply(self._batch_id, False, [], group_rows(rows)))
