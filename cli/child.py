"""One process of the launcher: started, listened to, signalled, reaped.

A child leads its own process group, so a Ctrl-C in the terminal reaches the
launcher alone and the order of stopping is ours.  It asks the kernel for
SIGTERM when the launcher dies, so even `kill -9` leaves nothing behind.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from stoker.cli.notify_socket import NotifySocket
from stoker.cli.program import Program
from stoker.cli.restarts import Restarts

#: A child that is ready must send WATCHDOG=1 this often at least.
WATCHDOG_S: Final = 30.0
_NOT_FOR_CHILDREN: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS")


class Child:
    """One role ("supervisor", "frontend") and the process that has it now, if any."""

    def __init__(
        self, name: str, program: Program, environ: Mapping[str, str], folder: Path
    ) -> None:
        self.name = name
        self.restarts = Restarts()
        self.is_ready = False
        #: The process that ended last had been ready; some process has been.
        self.was_ready = False
        self.was_ever_ready = False
        #: When it must have become ready, or sent its next watchdog, or be gone.
        self.deadline: float | None = None
        #: When it is to be started again.
        self.start_at: float | None = None
        #: It was told to end, or to show where it hangs and end.
        self.is_stopping = False
        self.is_aborted = False
        self.status = ""
        self.notify = NotifySocket(folder / f"notify-{name}.sock")
        self._program = program
        self._environ = {k: v for k, v in environ.items() if k not in _NOT_FOR_CHILDREN}
        self._environ["NOTIFY_SOCKET"] = str(self.notify.path)
        self._environ["WATCHDOG_USEC"] = str(int(WATCHDOG_S * 1_000_000))
        #: Not reaped yet, so the number is its own even if it is dead.
        self.pid: int | None = None

    @property
    def is_running(self) -> bool:
        return self.pid is not None

    def start(self, *, timeout_s: float) -> None:
        """Raises OSError when the system refuses."""
        self.notify.receive_nowait()  # what a predecessor said last is not news
        self.is_ready = self.is_stopping = self.is_aborted = False
        self.status, self.start_at = "", None
        self.pid = self._program.fork(self._environ)
        self.deadline = time.monotonic() + timeout_s

    def hear(self) -> bool:
        """Take in what it has to say; True when it has just become ready."""
        has_become_ready = False
        for message in self.notify.receive_nowait():
            self.status = message.get("STATUS", self.status)
            if message.get("READY") == "1" and self.is_running:
                has_become_ready = has_become_ready or not self.is_ready
                self.is_ready = self.was_ever_ready = True
                if not (self.is_stopping or self.is_aborted):
                    self.deadline = time.monotonic() + WATCHDOG_S
            is_served = self.is_ready and not (self.is_stopping or self.is_aborted)
            if message.get("WATCHDOG") == "1" and is_served:
                self.deadline = time.monotonic() + WATCHDOG_S
            extension = message.get("EXTEND_TIMEOUT_USEC", "")
            if self.deadline is not None and extension.isdecimal() and len(extension) < 16:
                wanted = time.monotonic() + int(extension) / 1_000_000
                self.deadline = max(self.deadline, wanted)
        return has_become_ready

    def signal(self, number: signal.Signals) -> None:
        """To the process alone; it knows what to do about its own children."""
        if self.pid is not None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to its whole group."""
        if self.pid is not None:
            _kill_group(self.pid)

    def reap_nowait(self) -> int | None:
        """Its exit status once it has ended; the rest of its group ends with it.

        The group is killed while the dead process is still a zombie: until it
        is reaped, its number cannot become somebody else's group.
        """
        pid = self.pid
        if pid is None:
            return None
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        _kill_group(pid)
        _, status = os.waitpid(pid, 0)
        self.pid = None
        self.was_ready, self.is_ready, self.deadline = self.is_ready, False, None
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        self.notify.close()


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
