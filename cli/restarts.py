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

#: So many starts in a row that came to nothing, within the window, end the server.
MAX_FAILED_STARTS: Final = 5
WINDOW_S: Final = 10.0
#: Before the second restart within the window; the first is immediate.
SECOND_DELAY_S: Final = 0.1
MAX_DELAY_S: Final = 5.0
#: Deaths remembered: as many as it takes to reach the longest delay.
_MAX_DEATHS: Final = 8
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

    _deaths: deque[float] = field(default_factory=lambda: deque(maxlen=_MAX_DEATHS))
    _failed_starts: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_FAILED_STARTS))

    def after_death(
        self, status: int, *, was_ready: bool, was_ever_ready: bool, now: float
    ) -> Restart | GiveUp:
        """What to do about a process that ended unasked.

        One that works between its deaths is slowed, not given up: each of its
        lives serves requests, and whoever kills it may stop doing so.

        Args:
            status: As `subprocess` gives it; negative is a signal.
            was_ready: This process had become ready.
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
        if was_ready:
            self._failed_starts.clear()
        else:
            _note(self._failed_starts, now)
            if len(self._failed_starts) == MAX_FAILED_STARTS:
                return GiveUp(ExitCode.KEEPS_DYING, "dies again and again")
        _note(self._deaths, now)
        recent = len(self._deaths)
        if recent == 1:
            return Restart(0.0)
        return Restart(min(SECOND_DELAY_S * 2.0 ** (recent - 2), MAX_DELAY_S))


def _note(instants: deque[float], now: float) -> None:
    while instants and now - instants[0] > WINDOW_S:
        instants.popleft()
    instants.append(now)
