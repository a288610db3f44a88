"""What a worker does between two batches, now and then."""

from __future__ import annotations

from typing import Protocol


class Errand(Protocol):
    """Something else to do than batches.  Its `run` may raise SupervisorGone."""

    def due_in(self, now: float) -> float | None:
        """Seconds; None while there is nothing to do."""
        ...

    def run(self, now: float) -> None: ...


class Errands:
    """All of one worker."""

    def __init__(self, *errands: Errand) -> None:
        self._errands = list(errands)

    def add(self, errand: Errand) -> None:
        self._errands.append(errand)

    @property
    def are_waiting(self) -> bool:
        """There is something to do, if not yet."""
        return any(errand.due_in(0.0) is not None for errand in self._errands)

    def run_due(self, now: float) -> float | None:
        """Do what is due; seconds until something else is, None: nothing is to be done."""
        least_s = None
        for errand in self._errands:
            left_s = errand.due_in(now)
            if left_s is None:
                continue
            if left_s <= 0.0:
                errand.run(now)
            elif least_s is None or left_s < least_s:
                least_s = left_s
        return least_s

    def run_all(self, now: float) -> None:
        """Do what there is, due or not: the worker is about to leave."""
        for errand in self._errands:
            if errand.due_in(now) is not None:
                errand.run(now)
