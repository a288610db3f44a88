"""Workers that nobody listens to for some milliseconds, so that their answers gather.

They lie in the kernel meanwhile, as safe as on any other way: a worker that
dies is drained, and however long its handler takes, we look when it is time.
Who may be left alone, and for how long, is decided in `dispatch.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from stoker.clock import Clock
from stoker.supervisor.alarm import Alarm
from stoker.wire.connections import Acceptor, Connection

#: Who is due so soon after another one is heard with it.
TOGETHER_S: Final = 0.000_1


class Gathering:
    """Those of one acceptor.

    Args:
        resume: Called with those whose time is over.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        acceptor: Acceptor,
        resume: Callable[[Sequence[Connection]], None],
    ) -> None:
        self._clock = clock
        self._acceptor = acceptor
        self._resume = resume
        #: When each is to be heard again.
        self._until: dict[Connection, float] = {}
        self._rings_at = float("inf")
        self._alarm: Alarm | None = Alarm(loop, self._ring)

    def begin(self, connection: Connection, for_s: float) -> None:
        """Leave one alone; one that is left alone already stays so for as long as it was told."""
        if connection in self._until or self._alarm is None:
            return
        self._acceptor.pause(connection)
        until = self._clock.now() + for_s
        self._until[connection] = until
        if until < self._rings_at:
            self._rings_at = until
            self._alarm.set(for_s)

    def close(self) -> None:
        """Harmless when repeated."""
        alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.close()

    def _ring(self) -> None:
        now = self._clock.now()
        due = [each for each, until in self._until.items() if until <= now + TOGETHER_S]
        for connection in due:
            del self._until[connection]
        self._rings_at = min(self._until.values(), default=float("inf"))
        if self._until and self._alarm is not None:
            self._alarm.set(self._rings_at - now)
        if due:
            self._resume(due)
