"""Time of the simulated server: an agenda, and as much of an event loop as a Link uses."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import Any


class Agenda:
    """What happens when; monotonic, and the same for every process of a machine.

    Attributes:
        events: Messages that arrived, timers that fired, faults.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 1000.0 + self.rng.random()
        self.events = 0
        self.log: deque[tuple[float, str, tuple[Any, ...]]] = deque(maxlen=80)
        self.slowness_s = self.rng.choice((0.00002, 0.0002, 0.002))
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._tie = 0

    def delay_s(self) -> float:
        """Of one message; sometimes a scheduler takes its time."""
        rng = self.rng
        slow = 50 if rng.random() < 0.01 else 1
        return self.slowness_s * slow * rng.random()

    def at(self, when: float, do: Callable[..., None], *args: Any) -> None:
        self._tie += 1
        heapq.heappush(self._heap, (when, self._tie, do, args))

    def after(self, delay_s: float, do: Callable[..., None], *args: Any) -> None:
        self.at(self.now + delay_s, do, *args)

    def step(self) -> None:
        when, _, do, args = heapq.heappop(self._heap)
        self.now = max(self.now, when)
        do(*args)

    def note(self, what: str, *facts: Any) -> None:
        """For the story of a failure."""
        self.log.append((self.now, what, facts))


class Timer:
    """What `call_later` returns."""

    def __init__(self, do: Callable[..., None], args: tuple[Any, ...]) -> None:
        self._do: Callable[..., None] | None = do
        self._args = args

    def fire(self) -> None:
        if self._do is not None:
            self._do(*self._args)

    def cancel(self) -> None:
        self._do = None


class ProcessLoop:
    """The loop of one process; nothing of it happens once that is dead."""

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda
        self.is_dead = False

    def call_later(self, delay_s: float, do: Callable[..., None], *args: Any) -> Timer:
        timer = Timer(do, args)
        self._agenda.after(delay_s, self._fire, timer)
        return timer

    def call_soon(self, do: Callable[..., None], *args: Any) -> Timer:
        return self.call_later(0.0, do, *args)

    def _fire(self, timer: Timer) -> None:
        if not self.is_dead:
            self._agenda.events += 1
            timer.fire()


class AgendaClock:
    """The monotonic clock of every process."""

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda

    def now(self) -> float:
        return self._agenda.now
