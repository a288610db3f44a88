"""The workers' end of the supervisor, as something that takes and gives records.

A connection stands for a worker from its hello to its end.  What one turn of
the loop wants to send to one worker leaves as one message: waking a process is
dearer than anything it then does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from stoker.clock import Clock
from stoker.logs import get_logger
from stoker.process_start import is_called
from stoker.supervisor.gathering import Gathering
from stoker.supervisor.guarding import guarded
from stoker.wire import codec, limits
from stoker.wire.connections import Acceptor, Connection
from stoker.wire.frames import (
    PROTOCOL,
    FromWorker,
    Replies,
    Reply,
    ToWorker,
    Work,
    WorkBatch,
    WorkerBack,
    WorkerHello,
)

log = get_logger("wire")


def speaks_for(pid: int, claim: WorkerHello | WorkerBack, connection: Connection) -> bool:
    """Whether the process may have said it, by kernel and protocol; its token is the proof."""
    return (
        claim.protocol == PROTOCOL
        and is_called(pid, claim.pid)
        and connection.peer_pid in (None, pid)
    )


class WorkerPort:
    """Batches wait for the end of the turn; everything else keeps its place behind them.

    Args:
        address: Where workers connect, `unix:/path`.
        on_message: Called with a connection, the worker that it stands for (None:
            for nobody yet), and a record.
        on_turn: Called after every burst of messages.
        on_lost: Called with a worker that is out of reach, and its connection.
        on_liar: Called with one that sent what is not ours, and the reason.
        user: As in `Acceptor`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        address: str,
        on_message: Callable[[Connection, int | None, FromWorker], None],
        on_turn: Callable[[], None],
        on_lost: Callable[[int, Connection], None],
        on_liar: Callable[[int, str], None],
        user: tuple[int, int] | None = None,
    ) -> None:
        self._on_message = on_message
        self._on_turn = on_turn
        self._on_lost = on_lost
        self._on_liar = on_liar
        self._worker_of: dict[Connection, int] = {}
        self._connections: dict[int, Connection] = {}
        self._work: dict[Connection, list[WorkBatch]] = {}
        self._acceptor = Acceptor(
            loop, clock, address, self._take, on_turn, self._lose, self._accuse, user
        )
        self._gathering = Gathering(loop, clock, self._acceptor, self._resume)
        #: Who is listened to again, and what it has answered.
        self._gathered: tuple[Connection, list[Reply]] | None = None
        self.sweep = self._acceptor.sweep

    def close(self) -> None:
        """Hang up on all of them; harmless when repeated."""
        self._acceptor.close()
        self._gathering.close()

    # -- who is who -----------------------------------------------------------

    def admit(self, connection: Connection, worker_id: int) -> None:
        """It has proved who it is; from now on its connection stands for it."""
        self._acceptor.admit(connection)
        connection.reader.takes_handles = True
        self._worker_of[connection] = worker_id
        self._connections[worker_id] = connection

    def knows(self, worker_id: int) -> bool:
        """Has it said hello?"""
        return worker_id in self._connections

    def forget(self, worker_id: int, connection: Connection) -> None:
        """This connection stands for nobody any more; the worker will come by another one."""
        self._worker_of.pop(connection, None)
        if self._connections.get(worker_id) is connection:
            del self._connections[worker_id]

    def part_with(self, worker_id: int) -> None:
        """Its process is gone."""
        connection = self._connections.pop(worker_id, None)
        if connection is not None:
            # What it answered before it died may still lie in the socket; what
            # it forked may hold the other end open.
            self._acceptor.drain(connection)
            self._acceptor.drop(connection)
            self._worker_of.pop(connection, None)

    def ban(self, connection: Connection, reason: str) -> None:
        """Hang up on a liar, and report it."""
        self._acceptor.drop(connection)
        self._accuse(connection, reason)

    # -- what they are told ---------------------------------------------------

    def give(self, worker_id: int, batch: WorkBatch) -> None:
        connection = self._connections.get(worker_id)
        if connection is not None:
            self._work.setdefault(connection, []).append(batch)

    def tell(self, worker_id: int, message: ToWorker) -> None:
        """Send after the batches that were given before; nothing to one that is not there."""
        connection = self._connections.get(worker_id)
        if connection is None:
            return
        batches = self._work.pop(connection, None)
        if batches is not None:
            _send(connection, batches)
        connection.send(codec.encode(message))

    def flush(self) -> None:
        if self._work:
            work, self._work = self._work, {}
            for connection, batches in work.items():
                _send(connection, batches)

    # -- what they say --------------------------------------------------------

    def let_gather(self, worker_id: int, for_s: float) -> None:
        """Do not listen to one for a while: what it says then is heard at once."""
        connection = self._connections.get(worker_id)
        if connection is not None:
            self._gathering.begin(connection, for_s)

    def _resume(self, connections: Sequence[Connection]) -> None:
        for connection in connections:
            # Whatever one says, the others must not stay unheard.
            guarded(self._hear)(connection)
        self._on_turn()

    def _hear(self, connection: Connection) -> None:
        # Told together: what they make room for is decided once, and each took its share.
        self._gathered = connection, []
        try:
            self._acceptor.resume(connection)
        finally:
            self._tell_gathered()

    def _tell_gathered(self) -> None:
        gathered, self._gathered = self._gathered, None
        if gathered is not None and gathered[1]:
            connection, replies = gathered
            self._on_message(connection, self._worker_of.get(connection), Replies(replies))

    def _take(self, connection: Connection, frame: memoryview) -> None:
        message = codec.decode_from_worker(frame, connection.reader.handles)
        if self._gathered is not None and type(message) is Replies:
            self._gathered[1].extend(message.replies)
        else:
            self._on_message(connection, self._worker_of.get(connection), message)

    def _lose(self, connection: Connection, reason: str) -> None:
        self._tell_gathered()  # it said so before it went
        worker_id = self._worker_of.get(connection)
        if worker_id is not None:
            self._on_lost(worker_id, connection)

    def _accuse(self, connection: Connection, reason: str) -> None:
        self._tell_gathered()
        log.warning("peer dropped", reason=reason)
        worker_id = self._worker_of.get(connection)
        if worker_id is not None:
            self._on_liar(worker_id, reason)


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
