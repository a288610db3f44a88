"""The way back: a Unix stream on which the supervisor reaches one frontend.

A frontend asks over ZeroMQ and is answered here.  ZeroMQ wakes a thread of its
own at each end before it wakes who reads; a socket of the kernel's wakes the
reader, and its end is an EOF at once.  Measured beside answers over ZeroMQ, in
turn: 0.85 of the time of a lone request and 0.83 of its CPU
(docs/architecture.md).  `stream.py` draws the stream; the supervisor's end of it
is in `connections.py`.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable

from stoker.errors import ProtocolError
from stoker.wire import codec
from stoker.wire.frames import PROTOCOL, FrontendListens
from stoker.wire.lent_bodies import Handle
from stoker.wire.stream import FrameReader, PeerGone, new_buffer, pieces, socket_path


class Downlink:
    """Opened anew to every supervisor.

    Args:
        address: `unix:/path`, see `answers_address`.
        frontend_id: Whose answers are wanted.
        take: Called with every frame, which is good until it returns, and the open files
            that came along with it.
        on_lost: Called when nothing can come any more.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: str,
        frontend_id: bytes,
        take: Callable[[memoryview, deque[Handle]], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._path = socket_path(address)
        self._frontend_id = frontend_id
        self._take = take
        self._on_lost = on_lost
        self._buffer = new_buffer()
        self._reader = FrameReader(self._buffer)
        self._socket: socket.socket | None = None

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    def open(self) -> bool:
        """Say who listens; False: nobody is there (yet).  Harmless when it is open."""
        if self._socket is not None:
            return True
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # A full backlog would have us wait, and all our clients with us.
            opened.setblocking(False)
            opened.connect(self._path)
            (listens,) = pieces(codec.encode(FrontendListens(PROTOCOL, self._frontend_id)))
            opened.send(listens)
        except OSError:
            opened.close()
            return False
        self._socket = opened
        self._reader = FrameReader(self._buffer)
        self._reader.takes_handles = True
        self._loop.add_reader(opened.fileno(), self._read)
        return True

    def close(self) -> None:
        """Harmless when repeated."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _read(self) -> None:
        source = self._socket
        assert source is not None
        try:
            for frame in self._reader.read(source):
                try:
                    self._take(frame, self._reader.handles)
                except Exception as error:
                    # What lies behind it is for others.
                    self._loop.call_exception_handler(
                        {"message": "an answer was not taken", "exception": error}
                    )
                if self._socket is not source:
                    return
        except BlockingIOError:
            pass
        except (PeerGone, ProtocolError):
            self.close()
            self._on_lost()
