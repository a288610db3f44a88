"""What one HTTP process counts: answers by status, errors by code.

Plain numbers that grow; `reporting.py` carries what was added since the last
time to the supervisor, where the numbers of all processes meet.
"""

from __future__ import annotations

from typing import Any


class Counts:
    """Since the last `take`."""

    __slots__ = ("answers", "errors")

    def __init__(self) -> None:
        #: By the first digit of the status.
        self.answers = [0] * 10
        #: Errors of ours that a client was answered, by code.
        self.errors: dict[str, int] = {}

    def refused(self, status: int, code: str) -> None:
        """An answer that passed no application."""
        self.answers[status // 100] += 1
        self.error(code)

    def error(self, code: str) -> None:
        self.errors[code] = self.errors.get(code, 0) + 1

    def take(self) -> dict[str, Any]:
        """What was counted; counting begins anew.  {} for nothing."""
        answers, errors = self.answers, self.errors
        if not any(answers):
            return {}
        # In place: connections hold on to the list.
        taken = {"answers": answers[:], "errors": errors}
        answers[:] = [0] * 10
        self.errors = {}
        return taken

    def give_back(self, taken: dict[str, Any]) -> None:
        """It did not arrive: count it next time."""
        for index, count in enumerate(taken.get("answers", ())):
            self.answers[index] += count
        for code, count in taken.get("errors", {}).items():
            self.errors[code] = self.errors.get(code, 0) + count
