"""Signals as bytes in a socket pair; the handlers themselves do nothing."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterable


class SignalQueue:
    """Takes the place of the handlers of these signals while it is entered; for one `select`."""

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        self._numbers = tuple(numbers)
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._old: dict[signal.Signals, object] = {}

    def __enter__(self) -> SignalQueue:
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in self._numbers:
            # nohup's wish stays.
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue
            self._old[number] = signal.signal(number, _do_nothing)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        for number, old in self._old.items():
            signal.signal(number, old)  # type: ignore[arg-type]
        self._reader.close()
        self._writer.close()

    def fileno(self) -> int:
        return self._reader.fileno()

    def take(self) -> list[signal.Signals]:
        try:
            return [signal.Signals(number) for number in self._reader.recv(4096)]
        except BlockingIOError:
            return []


def _do_nothing(*_: object) -> None:
    """Being installed is enough: the interpreter writes the signal's number to the queue."""
