"""The workers' end of the supervisor, as something that takes and gives records.

A connection stands for a worker from its hello to its end.  What one turn of
the loop wants to send to one worker leaves as one message: waking a process is
dearer than anything it then does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stoker.clock import Clock
from stoker.logs import get_logger
from stoker.wire import codec, limits
from stoker.wire.connections import Acceptor, Connection
from stoker.wire.frames import FromWorker, ToWorker, Work, WorkBatch

log = get_logger("wire")


class WorkerPort:
    """Batches wait for the end of the turn; everything else keeps its place behind them.

    Args:
        address: Where workers connect, `unix:/path`.
        on_message: Called with (connection, record).
        on_turn: Called after every burst of messages.
        on_lost: Called with a connection that is out of reach.
        on_liar: Called with one that sent what is not ours, and the reason.
        user: As in `Acceptor`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        address: str,
        on_message: Callable[[Connection, FromWorker], None],
        on_turn: Callable[[], None],
        on_lost: Callable[[Connection, str], None],
        on_liar: Callable[[Connection, str], None],
        user: tuple[int, int] | None = None,
    ) -> None:
        self._on_message = on_message
        self._on_liar = on_liar
        self._work: dict[Connection, list[WorkBatch]] = {}
        self._acceptor = Acceptor(
            loop, clock, address, self._take, on_turn, on_lost, self._accuse, user
        )
        self.admit = self._acceptor.admit
        self.drop = self._acceptor.drop
        self.drain = self._acceptor.drain
        self.sweep = self._acceptor.sweep
        self.close = self._acceptor.close

    def give(self, connection: Connection, batch: WorkBatch) -> None:
        self._work.setdefault(connection, []).append(batch)

    def tell(self, connection: Connection, message: ToWorker) -> None:
        """Send after the batches that were given before."""
        batches = self._work.pop(connection, None)
        if batches is not None:
            _send(connection, batches)
        connection.send(codec.encode(message))

    def flush(self) -> None:
        if self._work:
            work, self._work = self._work, {}
            for connection, batches in work.items():
                _send(connection, batches)

    def ban(self, connection: Connection, reason: str) -> None:
        """Hang up on a liar, and report it."""
        self.drop(connection)
        self._accuse(connection, reason)

    def _take(self, connection: Connection, frame: memoryview) -> None:
        self._on_message(connection, codec.decode_from_worker(frame))

    def _accuse(self, connection: Connection, reason: str) -> None:
        log.warning("peer dropped", reason=reason)
        self._on_liar(connection, reason)


def _send(connection: Connection, batches: list[WorkBatch]) -> None:
    """In one frame, as nearly always; in several where one has no room.  A batch always fits."""
    if len(batches) > 1:
        for some in _in_frames(batches):
            connection.send(codec.encode(Work(some)))
    else:
        connection.send(codec.encode(Work(batches)))


def _in_frames(batches: list[WorkBatch]) -> list[list[WorkBatch]]:
    frames: list[list[WorkBatch]] = []
    room_bytes = room = 0
    for batch in batches:
        size = sum(len(job.payload) for job in batch.jobs)
        if not frames or size > room_bytes or len(batch.jobs) > room:
            frames.append([])
            room_bytes, room = limits.MAX_WORK_BYTES, limits.MAX_WORK_JOBS
        frames[-1].append(batch)
        room_bytes -= size
        room -= len(batch.jobs)
    return frames
