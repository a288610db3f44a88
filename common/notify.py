"""Telling whoever started us how we are: systemd, or our own launcher.

The protocol is sd_notify(3): datagrams of `NAME=value` lines to the socket
that NOTIFY_SOCKET names.  Without that variable every call does nothing.
Nothing here may fail the caller: a lost status line is no reason to stop.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Final

#: How long a state may wait for room in the receiver's queue.
SEND_TIMEOUT_S: Final = 1.0
MAX_STATUS_CHARACTERS: Final = 1024


class Notifier:
    """Sends states; made once per process, from its environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._socket: socket.socket | None = None
        #: How often `watchdog` must be called, with half the time to spare;
        #: None when nobody watches this process.
        self.watchdog_interval_s = _watchdog_interval_s(environ)

    @property
    def is_heard(self) -> bool:
        """Somebody asked to be told."""
        return self._address is not None

    def ready(self, status: str = "") -> bool:
        """Start-up, or a reload, is done."""
        return self._send("READY=1", *_status_lines(status))

    def reloading(self) -> bool:
        """Settings are being read again; `ready` must follow."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self._send("RELOADING=1", f"MONOTONIC_USEC={now_us}")

    def stopping(self, status: str = "") -> bool:
        return self._send("STOPPING=1", *_status_lines(status))

    def status(self, text: str) -> bool:
        """One line for people, shown by `systemctl status`."""
        return self._send(*_status_lines(text), is_urgent=False)

    def watchdog(self) -> bool:
        """Still turning.  Never blocks: a loop that must be live calls it."""
        return self._send("WATCHDOG=1", is_urgent=False)

    def main_pid(self, pid: int) -> bool:
        return self._send(f"MAINPID={pid}")

    def extend_timeout(self, seconds: float) -> bool:
        """A long start or stop goes on and is not stuck."""
        return self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str, is_urgent: bool = True) -> bool:
        """True when the receiver has it."""
        if self._address is None or not lines:
            return False
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.settimeout(SEND_TIMEOUT_S if is_urgent else 0.0)
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return False
        return True


def _address(text: str) -> str | None:
    """A path, or an abstract name; anything else is not for us."""
    if text.startswith("@") and len(text) > 1:
        return "\0" + text[1:]
    return text if text.startswith("/") else None


def _watchdog_interval_s(environ: Mapping[str, str]) -> float | None:
    pid = environ.get("WATCHDOG_PID")
    if pid and pid != str(os.getpid()):
        return None
    period = environ.get("WATCHDOG_USEC", "")
    if not period.isascii() or not period.isdigit() or len(period) > 18 or int(period) == 0:
        return None
    return int(period) / 1_000_000 / 2


def _status_lines(text: str) -> list[str]:
    # A line break would let a text forge states.
    return [f"STATUS={' '.join(text[:MAX_STATUS_CHARACTERS].split())}"] if text else []
