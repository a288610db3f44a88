"""When a process that died is started again, and when to give up.

Pure: told what happened and the time, it answers.  The numbers are those of
the task a launcher has: bring a server back in milliseconds after one crash,
and not spin for ever on one that cannot live.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from stoker.exit_codes import FINAL, ExitCode

MAX_DEATHS: Final = 5
WINDOW_S: Final = 10.0
FIRST_DELAY_S: Final = 0.1
MAX_DELAY_S: Final = 5.0
#: gunicorn's own codes for a process that cannot boot and an application that cannot load.
_GUNICORN_BOOT_FAILURES: Final = frozenset({3, 4})


@dataclass(frozen=True, slots=True)
class Restart:
    """Start it again after `delay_s`."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Stop everything and exit with `code`."""

    code: ExitCode
    reason: str


@dataclass(slots=True)
class Restarts:
    """The recent deaths of one process."""

    _deaths: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_DEATHS))

    def after_death(self, status: int, *, was_ever_ready: bool, now: float) -> Restart | GiveUp:
        """What to do about a process that ended unasked.

        Args:
            status: As `subprocess` gives it; negative is a signal.
            was_ever_ready: Some process in this role has worked before, so
                a taken port is a left-over that goes away, not a mistake.
        """
        if not was_ever_ready and status in _GUNICORN_BOOT_FAILURES:
            return GiveUp(ExitCode.FAILURE, "cannot boot")
        if status == ExitCode.ADDRESS_IN_USE and not was_ever_ready:
            # The peer exits with 1 (contracts/torchserve.md 1.1).
            return GiveUp(ExitCode.FAILURE, "address in use")
        if status in FINAL and status != ExitCode.ADDRESS_IN_USE:
            return GiveUp(ExitCode(status), "would fail again")
        while self._deaths and now - self._deaths[0] > WINDOW_S:
            self._deaths.popleft()
        self._deaths.append(now)
        if len(self._deaths) >= MAX_DEATHS:
            return GiveUp(ExitCode.KEEPS_DYING, "dies again and again")
        return Restart(min(FIRST_DELAY_S * 2 ** (len(self._deaths) - 1), MAX_DELAY_S))
