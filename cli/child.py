"""One process of the launcher: started, listened to, signalled, reaped.

A child leads its own process group, so a Ctrl-C in the terminal reaches the
launcher alone and the order of stopping is ours.  It asks the kernel for
SIGTERM when the launcher dies, so even `kill -9` leaves nothing behind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from stoker.cli.notify_socket import NotifySocket
from stoker.cli.restarts import Restarts

#: A child that has ever sent WATCHDOG=1 must go on doing so.
WATCHDOG_S: Final = 30.0
_PR_SET_PDEATHSIG: Final = 1
_NOT_FOR_CHILDREN: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS")
_libc: Final = ctypes.CDLL(None, use_errno=True)


class Child:
    """One role ("supervisor", "frontend") and the process that has it now, if any."""

    def __init__(
        self, name: str, argv: Sequence[str], environ: Mapping[str, str], folder: Path
    ) -> None:
        self.name = name
        self.restarts = Restarts()
        self.is_ready = False
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
        self._argv = list(argv)
        self._environ = {k: v for k, v in environ.items() if k not in _NOT_FOR_CHILDREN}
        self._environ["NOTIFY_SOCKET"] = str(self.notify.path)
        self._environ["WATCHDOG_USEC"] = str(int(WATCHDOG_S * 1_000_000))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self, *, timeout_s: float) -> None:
        """Raises OSError when the system refuses."""
        launcher = os.getpid()

        def die_with_launcher() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != launcher:
                os._exit(0)  # it died before we asked

        self.notify.receive_nowait()  # what a predecessor said last is not news
        self.is_ready = self.is_stopping = self.is_aborted = False
        self.status, self.start_at = "", None
        self.deadline = time.monotonic() + timeout_s
        # preexec_fn is safe here: the launcher has one thread, and the
        # function does two system calls and takes no lock.
        self._process = subprocess.Popen(
            self._argv,
            stdin=subprocess.DEVNULL,
            env=self._environ,
            process_group=0,
            preexec_fn=die_with_launcher,  # noqa: PLW1509
        )

    def hear(self) -> bool:
        """Take in what it has to say; True when it has just become ready."""
        has_become_ready = False
        for message in self.notify.receive_nowait():
            self.status = message.get("STATUS", self.status)
            if message.get("READY") == "1" and self.is_running:
                has_become_ready = has_become_ready or not self.is_ready
                self.is_ready = self.was_ever_ready = True
                if not (self.is_stopping or self.is_aborted):
                    self.deadline = None
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
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to its whole group."""
        if self._process is not None:
            _kill_group(self._process.pid)

    def reap_nowait(self) -> int | None:
        """Its exit status once it has ended; the rest of its group ends with it.

        The group is killed while the dead process is still a zombie: until it
        is reaped, its number cannot become somebody else's group.
        """
        if self._process is None:
            return None
        pid = self._process.pid
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        _kill_group(pid)
        status = self._process.wait()
        self._process = None
        self.is_ready, self.deadline = False, None
        return status

    def close(self) -> None:
        self.notify.close()


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
