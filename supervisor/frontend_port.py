"""The frontends' end of the supervisor, as something that takes and gives records.

A port drains its ROUTER until there is nothing left, hands every valid record
to its owner with the peer's identity, and drops peers whose frames are not
ours.  What one turn of the loop wants to send to one peer leaves as one
message: waking a process is dearer than anything it then does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import zmq

from stoker.errors import ProtocolError
from stoker.logs import get_logger
from stoker.wire import codec, sockets
from stoker.wire.frames import Answers, FromFrontend, Refused, RefusedJob, ToFrontend
from stoker.wire.poller import SocketReader

log = get_logger("wire")

#: Peers that sent rubbish; their later frames are not even read.
MAX_BANNED: Final = 1024
#: We open one; the default would have libzmq make room for a thousand.
MAX_SOCKETS: Final = 16


class FrontendPort:
    """One bound ROUTER; answers and refusals wait for the end of the turn.

    Args:
        on_message: Called with (identity, record).
        on_turn: Called after every burst of messages.
        on_lost: Called with the identity of a peer that cannot be reached or
            sent what is not ours: its clients are gone either way.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: str,
        on_message: Callable[[bytes, FromFrontend], None],
        on_turn: Callable[[], None],
        on_lost: Callable[[bytes, str], None],
    ) -> None:
        self._address = address
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
        self._socket = sockets.bind_router(self._context, address)
        self._on_message = on_message
        self._on_turn = on_turn
        self._on_lost = on_lost
        self._banned: dict[bytes, None] = {}
        self._answers: dict[bytes, list[bytes]] = {}
        self._refused: dict[bytes, list[RefusedJob]] = {}
        self._reader = SocketReader(loop, self._socket, self._drain)

    def close(self) -> None:
        self._reader.close()
        self._socket.close(0)
        sockets.remove_file(self._address)
        self._context.term()

    # -- out ------------------------------------------------------------------

    def send(self, identity: bytes, message: ToFrontend) -> None:
        """Send now; a peer that cannot take it is reported lost."""
        frame = codec.encode(message)
        # Before, because a send that fails may have eaten the edge as well.
        self._reader.check_soon()
        try:
            self._socket.send(identity, zmq.SNDMORE | zmq.NOBLOCK)
            self._socket.send(frame, zmq.NOBLOCK, copy=not sockets.is_worth_sharing(frame))
        except zmq.ZMQError as error:
            # EHOSTUNREACH: gone; EAGAIN: it stopped reading long ago.
            self._on_lost(identity, str(error))

    def answer(self, frontend_id: bytes, frame: bytes) -> None:
        frames = self._answers.get(frontend_id)
        if frames is None:
            self._answers[frontend_id] = [frame]
        else:
            frames.append(frame)

    def refuse(self, frontend_id: bytes, job: RefusedJob) -> None:
        self._refused.setdefault(frontend_id, []).append(job)

    def flush(self) -> None:
        if self._answers:
            answers, self._answers = self._answers, {}
            for frontend_id, frames in answers.items():
                self.send(frontend_id, Answers(frames))
        if self._refused:
            refused, self._refused = self._refused, {}
            for frontend_id, jobs in refused.items():
                self.send(frontend_id, Refused(jobs))

    # -- in -------------------------------------------------------------------

    def _drain(self, limit: int) -> bool:
        is_cut_short = True
        for _ in range(limit):
            try:
                identity = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                is_cut_short = False
                break
            self._take(identity)
        self._on_turn()
        return is_cut_short

    def _take(self, identity: bytes) -> None:
        frame = self._socket.recv(zmq.NOBLOCK)
        is_multipart = False
        while self._socket.getsockopt(zmq.RCVMORE):
            self._socket.recv(zmq.NOBLOCK)
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
        self._on_message(identity, message)

    def ban(self, identity: bytes, reason: str) -> None:
        """Stop listening to a peer and report it lost."""
        log.warning("peer dropped", reason=reason)
        self._banned[identity] = None
        while len(self._banned) > MAX_BANNED:
            del self._banned[next(iter(self._banned))]
        self._on_lost(identity, reason)
