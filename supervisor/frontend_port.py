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
from stoker.wire.frames import (
    MAX_SUBMIT_BYTES,
    Answers,
    FromFrontend,
    Refused,
    RefusedJob,
    ToFrontend,
)
from stoker.wire.limits import MAX_FRAME_BYTES
from stoker.wire.poller import NOBLOCK, SNDMORE_NOBLOCK, SocketReader

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
        max_payload_bytes: Of one job.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: str,
        on_message: Callable[[bytes, FromFrontend], None],
        on_turn: Callable[[], None],
        on_lost: Callable[[bytes, str], None],
        max_payload_bytes: int,
    ) -> None:
        self._address = address
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
        # Jobs gather up to a bound, and the last of them may be of any size.
        most = min(MAX_FRAME_BYTES, MAX_SUBMIT_BYTES + max_payload_bytes)
        self._socket = sockets.bind_router(self._context, address, most)
        self._on_message = on_message
        self._on_lost = on_lost
        self._banned: dict[bytes, None] = {}
        self._answers: dict[bytes, list[bytes]] = {}
        self._refused: dict[bytes, list[RefusedJob]] = {}
        self._reader = SocketReader(loop, self._socket, self._receive, on_turn)

    def close(self) -> None:
        self._reader.close()
        self._socket.close(0)
        sockets.remove_file(self._address)
        self._context.term()

    # -- out ------------------------------------------------------------------

    def send(self, identity: bytes, message: ToFrontend) -> None:
        """Send now; a peer that cannot take it is reported lost."""
        self._reader.check_soon()
        self._send(identity, message)

    def _send(self, identity: bytes, message: ToFrontend) -> None:
        frame = codec.encode(message)
        try:
            self._socket.send(identity, SNDMORE_NOBLOCK)
            self._socket.send(frame, NOBLOCK, copy=not sockets.is_worth_sharing(frame))
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
        """Send what has gathered; only at the end of a turn."""
        if not self._answers and not self._refused:
            return
        answers, self._answers = self._answers, {}
        for frontend_id, frames in answers.items():
            self._send(frontend_id, Answers(frames))
        refused, self._refused = self._refused, {}
        for frontend_id, jobs in refused.items():
            self._send(frontend_id, Refused(jobs))
        self._reader.check()

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
        self._on_message(identity, message)

    def ban(self, identity: bytes, reason: str) -> None:
        """Stop listening to a peer and report it lost."""
        log.warning("peer dropped", reason=reason)
        self._banned[identity] = None
        while len(self._banned) > MAX_BANNED:
            del self._banned[next(iter(self._banned))]
        self._on_lost(identity, reason)
