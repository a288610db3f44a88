"""How a worker ended, in words for the log, for `describe` and for the client's error.

Source: contracts/torchserve.md 8.5; SIGKILL without a known sender smells of
the kernel's OOM killer, and 137 is how a shell passes that on.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Final

_SHELL_SIGNAL_BASE: Final = 128
_LIKELY_SIGNALS: Final[dict[int, str]] = {
    signal.SIGKILL: "out of memory",
    signal.SIGSEGV: "crash in native code",
    signal.SIGBUS: "crash in native code, or no room in shared memory",
    signal.SIGILL: "native code for another processor",
    signal.SIGFPE: "crash in native code",
    signal.SIGABRT: "abort in native code",
    signal.SIGSYS: "system call refused by a sandbox",
    signal.SIGTERM: "stopped from outside",
    signal.SIGXCPU: "CPU time limit",
}
_LIKELY_CODES: Final[dict[int, str]] = {
    _SHELL_SIGNAL_BASE + signal.SIGKILL: "out of memory",
    127: "interpreter not found",
    126: "interpreter not executable",
}


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """Exit code or signal; both None when somebody else reaped the worker.

    Attributes:
        is_ours: The signal that ended it is one that we sent.
    """

    code: int | None
    signal: int | None
    is_ours: bool = False

    def describe(self) -> str:
        """`exit 3`, `SIGKILL`, or `unknown`."""
        if self.signal is not None:
            return _signal_name(self.signal)
        return "unknown" if self.code is None else f"exit {self.code}"

    def likely(self) -> str | None:
        """What probably caused it, for a person; None when there is nothing to guess."""
        if self.is_ours:
            return None
        if self.signal is not None:
            return _LIKELY_SIGNALS.get(self.signal)
        return None if self.code is None else _LIKELY_CODES.get(self.code)

    @property
    def is_out_of_memory(self) -> bool:
        """Should clients hear `worker_out_of_memory` rather than `worker_died`?"""
        return self.likely() == "out of memory"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # the real-time ones between the named two
        return f"signal {number}"
