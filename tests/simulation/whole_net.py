"""Connections of the simulated server: in order each, slow, and cut with what was on its way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from whole_time import Agenda


class Pipe:
    """One direction of one connection: first in, first out, after a while.

    Different pipes know nothing of each other, so what goes by another
    connection, also by the next one of the same two, may overtake.

    Args:
        take: Gets each message at the other end.
    """

    def __init__(self, agenda: Agenda, take: Callable[[Any], None]) -> None:
        self._agenda = agenda
        self._take = take
        self._on_way: deque[Any] = deque()
        self._free_at = 0.0
        self.is_cut = False

    def send(self, message: Any) -> None:
        """Into nowhere when it is cut."""
        if self.is_cut:
            return
        agenda = self._agenda
        self._on_way.append(message)
        self._free_at = max(self._free_at, agenda.now + agenda.delay_s())
        agenda.at(self._free_at, self._deliver)

    def _deliver(self) -> None:
        if self._on_way:
            self._agenda.events += 1
            self._take(self._on_way.popleft())

    def cut(self) -> int:
        """What had not come so far may still come, but for the end of it.

        Returns:
            How many messages are lost.
        """
        self.is_cut = True
        lost = self._agenda.rng.randint(0, len(self._on_way))
        for _ in range(lost):
            self._on_way.pop()
        return lost

    def hang_up(self) -> None:
        """The far end hears of the end last."""
        self.cut()
        self._on_way.append(None)
        self._free_at = max(self._free_at, self._agenda.now)
        self._agenda.at(self._free_at, self._deliver)

    def deliver_all(self) -> None:
        """Whoever reads does so at once, to the end."""
        while self._on_way:
            self._deliver()

    def discard(self) -> int:
        """There is nobody any more at the other end."""
        lost = len(self._on_way)
        self.is_cut = True
        self._on_way.clear()
        return lost
