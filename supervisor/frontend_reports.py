"""What the HTTP processes have counted, put together.

Every process reports what was added since its last report, so the sums
outlive the processes; what a process holds just now is forgotten when it has
been silent for long.
"""

from __future__ import annotations

from typing import Any, Final

#: A process reports every few seconds even if it has nothing to say.
FORGET_S: Final = 15.0
#: Codes and processes are ours; a peer that makes them up fills no memory.
MAX_CODES: Final = 256
MAX_PROCESSES: Final = 1024


class FrontendReports:
    """Sums of all processes since this supervisor started.

    Attributes:
        answers: By the first digit of the status.
        errors: By code.
    """

    def __init__(self) -> None:
        self.answers = [0] * 10
        self.errors: dict[str, int] = {}
        self._held: dict[int, tuple[float, dict[str, int]]] = {}

    def take(self, report: dict[str, Any], now: float) -> None:
        for index, count in enumerate(_list(report.get("answers"))[:10]):
            self.answers[index] += _count(count)
        for code, count in _dict(report.get("errors")).items():
            if code in self.errors or len(self.errors) < MAX_CODES:
                self.errors[code] = self.errors.get(code, 0) + _count(count)
        process = _count(report.get("process"))
        if process in self._held or len(self._held) < MAX_PROCESSES:
            held = {name: _count(n) for name, n in _dict(report.get("held")).items()}
            self._held[process] = (now, held)

    def held(self, now: float) -> dict[str, int]:
        """What all processes hold together, by name."""
        total: dict[str, int] = {}
        for process, (seen_at, held) in list(self._held.items()):
            if now - seen_at > FORGET_S:
                del self._held[process]
                continue
            for name, count in held.items():
                total[name] = total.get(name, 0) + count
        return total


def _count(value: object) -> int:
    return value if type(value) is int and value > 0 else 0


def _list(value: object) -> list[Any]:
    return value if type(value) is list else []


def _dict(value: object) -> dict[str, Any]:
    return value if type(value) is dict else {}
