"""A signal that means: finish what is in hand and leave; and how it ends a poll."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable
from types import FrameType


class StopSignal:
    """Readable once the signal has come; Python resumes a poll that it merely interrupted."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._read, select.POLLIN)

    def fileno(self) -> int:
        """Readable after a signal, until `clear`."""
        return self._read

    def listen(self, signum: signal.Signals, heard: Callable[[], None]) -> None:
        """Call `heard` when it comes; that is in the middle of whatever Python does."""

        def stop(_signum: int, _frame: FrameType | None) -> None:
            heard()
            with contextlib.suppress(BlockingIOError):
                os.write(self._write, b"x")

        signal.signal(signum, stop)
        # Python runs `stop` when it is back from what it does, and it may be about to
        # poll; this is written at once.  A handler's asyncio may take it away from us.
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def wait(self, timeout_s: float) -> None:
        if self._poll.poll(timeout_s * 1000):
            self.clear()

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 512)

    def close(self) -> None:
        # The process is ending already; a second wish must not look like a crash.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)
