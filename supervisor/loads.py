"""How the loads of one version have gone: how long they take, and why the latest failed."""

from __future__ import annotations

from typing import Final

from stoker.supervisor.versions import Failure

#: Of a handler of MMS that serves although its start complained.
FLAWED: Final = "The handler's initialize failed; it serves all the same, as MMS's workers do."


class Loads:
    """What is known of them.

    Attributes:
        failure: Why the latest failed; None once one has succeeded, or somebody
            looked after the version.
        failure_count: So that a waiter can tell a failure that came after it.
        start_s: How long a worker takes from its start until it is ready; None
            before the first was.
    """

    def __init__(self) -> None:
        self.has_ever_loaded = False
        self.failure: Failure | None = None
        self.failure_count = 0
        self.start_s: float | None = None

    def adopted(self) -> None:
        """A worker has come that had loaded before."""
        self.has_ever_loaded = True
        self.failure = None

    def succeeded(self, took_s: float, flaw: str) -> None:
        """`flaw`: what the handler complained of all the same, or ""."""
        self.has_ever_loaded = True
        self.failure = Failure(FLAWED, flaw) if flaw else None
        # Smoothed: one start that met a cold disk is not how all of them are.
        known_s = self.start_s
        self.start_s = took_s if known_s is None else known_s + (took_s - known_s) / 4

    def failed(self, failure: Failure) -> None:
        self.failure = failure
        self.failure_count += 1

    def is_news(self, failure: Failure) -> bool:
        """Has nobody been told of this reason yet?"""
        return self.failure is None or self.failure.last_line != failure.last_line
