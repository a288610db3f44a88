"""One timer that is set again and again, to the microsecond.

uvloop rounds to milliseconds and makes and closes a handle for every
`call_later`, which costs another turn of the loop each; a batch delay of 2 ms
deserves better, and is set for every batch.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from typing import Final

# From <linux/time.h> and <sys/timerfd.h>; the os module has them from 3.13 on.
_CLOCK_MONOTONIC: Final = 1
_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
#: Nothing but 0 means "never", so the shortest time is this.
_SOONEST_S: Final = 1e-6

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Alarm:
    """Calls `ring` once after each `set`, unless set anew before.

    Raises:
        OSError: The system refuses another descriptor.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._fd = int(_libc.timerfd_create(_CLOCK_MONOTONIC, _FLAGS))
        if self._fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        # struct itimerspec: no interval; seconds and nanoseconds until it rings.
        self._spec = (ctypes.c_long * 4)()
        loop.add_reader(self._fd, self._expire)

    def set(self, delay_s: float) -> None:
        spec = self._spec
        seconds, rest = divmod(max(delay_s, _SOONEST_S), 1.0)
        spec[2] = int(seconds)
        spec[3] = int(rest * 1e9)
        _libc.timerfd_settime(self._fd, 0, spec, None)

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _expire(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # it was set anew after the loop had noticed
        self._ring()
