"""A zmq socket on an asyncio loop that is only read, drained until there is nothing left.

zmq's file descriptor is edge-triggered: it becomes readable when *something*
may have changed, once (zmq.asyncio, which hides that, was measured 7 times
dearer; design section 3).  What keeps a wake-up from being lost:

- The I/O thread signals a message only to a reader that found its queue empty
  before.  So every burst ends with a look at EVENTS that says "nothing": it
  empties the descriptor and tells the I/O thread that we sleep.
- Any call on the socket may process what was signalled, and so eat the edge:
  sending, too.  So nobody else calls it; what is sent goes another way.
- In between no look is needed: what comes signals the descriptor.

A look costs a system call in libzmq (a poll of the descriptor), `Again` twice
that, because pyzmq makes an exception with a text of it: hence EVENTS before
every `recv` but the first, which the loop has announced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import zmq

#: Messages taken in one go before other events of the loop get their turn.
DRAIN_LIMIT: Final = 256
#: As a plain integer, like `NOBLOCK`.
_POLLIN: Final = int(zmq.POLLIN)


class SocketReader:
    """Takes whatever arrives at a socket.

    Args:
        take: Receives one message with NOBLOCK and deals with it; lets
            `zmq.Again` through.
        on_burst: Called after every burst of messages.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: zmq.Socket[bytes],
        take: Callable[[], None],
        on_burst: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = loop
        self._socket = socket
        self._take = take
        self._on_burst = on_burst
        self._fd = int(socket.getsockopt(zmq.FD))
        self._is_check_due = False
        self._is_open = True
        loop.add_reader(self._fd, self._drain)
        # What came before is not announced any more.
        self._check_soon()

    def _check_soon(self) -> None:
        if not self._is_check_due:
            self._is_check_due = True
            self._loop.call_soon(self._check)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._fd)

    def _check(self) -> None:
        self._is_check_due = False
        if self._is_open and self._has_input():
            self._drain()

    def _has_input(self) -> bool:
        return bool(self._socket.getsockopt(zmq.EVENTS) & _POLLIN)  # type: ignore[operator]

    def _drain(self) -> None:
        if not self._is_open:
            return
        try:
            for _ in range(DRAIN_LIMIT):
                self._take()
                if not self._is_open or not self._has_input():
                    break
            else:
                self._check_soon()
        except zmq.Again:
            pass  # signalled for something else, or somebody was here before
        except BaseException:
            self._check_soon()
            raise
        self._on_burst()
