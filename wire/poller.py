"""A zmq socket on an asyncio loop, drained until there is nothing left.

zmq's file descriptor is edge-triggered: it becomes readable when *something*
may have changed, once.  So a reader must take everything that is there, and a
sender must look again after sending, because zmq may have eaten the edge
while it sent (design section 3; zmq.asyncio was measured 7 times dearer).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import zmq

#: Frames taken in one go before other events of the loop get their turn.
DRAIN_LIMIT: Final = 256


class SocketReader:
    """Calls `on_readable` on the loop whenever the socket may have frames.

    `on_readable(limit)` takes up to `limit` frames with NOBLOCK and returns
    True if it stopped because of the limit.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: zmq.Socket[bytes],
        on_readable: Callable[[int], bool],
    ) -> None:
        self._loop = loop
        self._socket = socket
        self._on_readable = on_readable
        self._fd = int(socket.getsockopt(zmq.FD))
        self._is_check_due = False
        self._is_open = True
        loop.add_reader(self._fd, self._drain)
        self.check_soon()

    def check_soon(self) -> None:
        """Look at EVENTS once in the next turn; call after every burst of sends."""
        if not self._is_check_due and self._is_open:
            self._is_check_due = True
            self._loop.call_soon(self._check)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._fd)

    def _check(self) -> None:
        self._is_check_due = False
        if self._is_open and int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._drain()

    def _drain(self) -> None:
        if self._is_open and self._on_readable(DRAIN_LIMIT):
            self.check_soon()
