"""The frontends' end of the supervisor, as something that takes and gives records.

They ask at a ROUTER and are answered on a stream each (`wire/downlink.py`).  The
port drains the ROUTER until there is nothing left, hands every valid record to
its owner with the peer's identity, and drops peers whose frames are not ours.
What one turn of the loop wants to send to one peer leaves as one message: waking
a process is dearer than anything it then does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import zmq

from stoker.clock import Clock
from stoker.errors import ProtocolError
from stoker.logs import get_logger
from stoker.wire import codec, sockets
from stoker.wire.connections import MAX_HELLO_BYTES, Acceptor, Connection
from stoker.wire.frames import (
    MAX_SUBMIT_BYTES,
    PROTOCOL,
    AnswerFrame,
    Answers,
    FromFrontend,
    Refused,
    RefusedJob,
    ToFrontend,
)
from stoker.wire.lent_bodies import LentFrame
from stoker.wire.limits import MAX_FRAME_BYTES
from stoker.wire.poller import SocketReader
from stoker.wire.sockets import NOBLOCK
from stoker.wire.stream import MAX_HANDLES

log = get_logger("wire")

#: Peers that sent rubbish; their later frames are not even read.
MAX_BANNED: Final = 1024
#: Frontends that are answered at once; there are a few.
MAX_LISTENERS: Final = 1024
#: We open one; the default would have libzmq make room for a thousand.
MAX_SOCKETS: Final = 16


class FrontendPort:
    """Answers and refusals wait for the end of the turn.

    Args:
        address: Where frontends ask, `ipc:///path`.
        answers_address: Where they are answered, `unix:/path`.
        on_message: Called with (identity, record).
        on_turn: Called after every burst of messages.
        on_lost: Called with the identity of a peer that has left, does not read, or
            sent what is not ours, and why: its clients are gone either way.
        max_payload_bytes: Of one job.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        address: str,
        answers_address: str,
        on_message: Callable[[bytes, FromFrontend], None],
        on_turn: Callable[[], None],
        on_lost: Callable[[bytes, str], None],
        max_payload_bytes: int,
    ) -> None:
        self._address = address
        self._listeners: dict[bytes, Connection] = {}
        self._identity_of: dict[Connection, bytes] = {}
        self._was_full = False
        # Before the ROUTER: who can say hello there can be answered.
        self._acceptor = Acceptor(
            loop, clock, answers_address, self._hear, lambda: None, self._part, self._accuse
        )
        self.sweep = self._acceptor.sweep
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
        # Jobs gather up to a bound, and the last of them may be of any size.
        most = min(MAX_FRAME_BYTES, MAX_SUBMIT_BYTES + max_payload_bytes)
        self._socket = sockets.bind_router(self._context, address, most)
        self._on_message = on_message
        self._on_lost = on_lost
        self._banned: dict[bytes, None] = {}
        self._answers: dict[bytes, list[AnswerFrame]] = {}
        self._refused: dict[bytes, list[RefusedJob]] = {}
        self._reader = SocketReader(loop, self._socket, self._receive, on_turn)

    def close(self) -> None:
        self._reader.close()
        self._acceptor.close()
        self._socket.close(0)
        sockets.remove_file(self._address)
        self._context.term()

    # -- out ------------------------------------------------------------------

    def send(self, identity: bytes, message: ToFrontend) -> None:
        """Send now, or as soon as it reads; nothing to one that is not there."""
        connection = self._listeners.get(identity)
        if connection is not None:
            connection.send(codec.encode(message))

    def answer(self, frontend_id: bytes, frame: AnswerFrame) -> None:
        frames = self._answers.get(frontend_id)
        if frames is None:
            self._answers[frontend_id] = [frame]
        else:
            frames.append(frame)

    def refuse(self, frontend_id: bytes, job: RefusedJob) -> None:
        self._refused.setdefault(frontend_id, []).append(job)

    def flush(self) -> None:
        """Send what has gathered; only at the end of a turn."""
        if not self._answers and not self._refused:
            return
        answers, self._answers = self._answers, {}
        for frontend_id, frames in answers.items():
            connection = self._listeners.get(frontend_id)
            if connection is not None:
                _answer(connection, frames)
        refused, self._refused = self._refused, {}
        for frontend_id, jobs in refused.items():
            self.send(frontend_id, Refused(jobs))

    # -- in -------------------------------------------------------------------

    def _receive(self) -> None:
        socket = self._socket
        identity = socket.recv(NOBLOCK)
        frame = socket.recv(NOBLOCK)
        is_multipart = False
        while socket.getsockopt(zmq.RCVMORE):
            socket.recv(NOBLOCK)
            is_multipart = True
        if identity in self._banned:
            return
        try:
            if is_multipart:
                raise ProtocolError("more than one frame")
            message = codec.decode_from_frontend(frame)
        except ProtocolError as error:
            self.ban(identity, error.message)
            return
        if identity not in self._listeners:
            # It says where it listens before it asks, but the two ways are not in order.
            self._acceptor.hear_strangers()
        self._on_message(identity, message)

    def listens(self, identity: bytes) -> bool:
        """Whether it can be answered."""
        return identity in self._listeners

    def _hear(self, connection: Connection, frame: memoryview) -> None:
        if connection.is_admitted:
            raise ProtocolError("more than who listens")
        said = codec.decode_from_listener(frame)
        identity = said.frontend_id
        before = self._listeners.get(identity)
        if before is not None:
            self._part(before, "it came by another way")
        if identity in self._banned or not self._has_room():
            self._acceptor.drop(connection)
            return
        self._acceptor.admit(connection)
        # It has nothing more to say here.
        connection.reader.max_bytes = MAX_HELLO_BYTES
        self._listeners[identity] = connection
        self._identity_of[connection] = identity
        if said.protocol != PROTOCOL:
            self.ban(identity, "a frontend of another release")

    def _has_room(self) -> bool:
        is_full = len(self._listeners) >= MAX_LISTENERS
        if is_full and not self._was_full:
            # Once: who is turned away comes again fifty times a second.
            log.warning("no more frontends are taken", most=MAX_LISTENERS)
        self._was_full = is_full
        return not is_full

    def _accuse(self, connection: Connection, reason: str) -> None:
        identity = self._identity_of.get(connection)
        if identity is not None:
            self.ban(identity, reason)
        else:
            log.warning("peer dropped", reason=reason)

    def _part(self, connection: Connection, reason: str) -> None:
        self._acceptor.drop(connection)
        identity = self._identity_of.pop(connection, None)
        if identity is not None:
            del self._listeners[identity]
            self._on_lost(identity, reason)

    def ban(self, identity: bytes, reason: str) -> None:
        """Stop listening to a peer and report it lost."""
        log.warning("peer dropped", reason=reason)
        self._banned[identity] = None
        while len(self._banned) > MAX_BANNED:
            del self._banned[next(iter(self._banned))]
        connection = self._listeners.get(identity)
        if connection is not None:
            self._part(connection, reason)
        else:
            self._on_lost(identity, reason)


def _answer(connection: Connection, frames: list[AnswerFrame]) -> None:
    """In one message, as nearly always; in several where more frames are lent than go with one."""
    lent = [frame for frame in frames if isinstance(frame, LentFrame) and frame.is_whole]
    if len(lent) <= MAX_HANDLES:
        connection.send(codec.encode(Answers(frames)), lent)
    else:
        for at in range(0, len(frames), MAX_HANDLES):
            _answer(connection, frames[at : at + MAX_HANDLES])
