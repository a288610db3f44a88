"""Contact with a supervisor that may die and come back: whether it is there, and which it is.

    nobody --welcome--> met --the way back ends, or nobody takes a hello,--> cut
                         ^    or LOST_AFTER_S of silence                      |
                         +----------------------welcome-----------------------+

Hellos are said all the time, so that a supervisor, or its successor, finds out
that we are here; each is answered with a welcome.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

from stoker.clock import Clock
from stoker.errors import SupervisorUnavailable
from stoker.wire.frames import PROTOCOL, FrontendHello

#: A hello this often; a supervisor that answers none of them for LOST_AFTER_S
#: is treated as gone.  Who waits for an answer says it with every sweep.
HELLO_INTERVAL_S: Final = 1.0
LOST_AFTER_S: Final = 30.0
#: The same while there is nobody to take it.
KNOCK_INTERVAL_S: Final = 0.02


def restarting() -> SupervisorUnavailable:
    """For whoever asks while there is nobody to ask."""
    return SupervisorUnavailable("The supervisor is being restarted; try again.")


class Contact:
    """Whether anybody takes what we say.

    Args:
        say: Sends a hello, and calls `cut` if nobody takes it.
        on_knock: Called with every hello while nobody takes it, with for how
            long that has been so.
    """

    def __init__(
        self,
        clock: Clock,
        say: Callable[[FrontendHello], object],
        on_knock: Callable[[float], None],
    ) -> None:
        self._clock = clock
        self._say = say
        self._on_knock = on_knock
        #: The last supervisor that there was, and since when nobody takes what we say.
        self._incarnation = b""
        self._cut_at: float | None = None
        self._welcomed_at = clock.now()
        self._met = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def seek(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say hello from now on.  Returns at once; `wait` waits."""
        self._loop = loop
        self._welcomed_at = self._clock.now()
        self._greet()

    async def wait(self, timeout_s: float) -> None:
        """Raises SupervisorUnavailable when nobody welcomes us in time."""
        try:
            await asyncio.wait_for(self._met.wait(), timeout_s)
        except TimeoutError:
            raise SupervisorUnavailable(
                "The supervisor does not answer; see its log.", waited_s=timeout_s
            ) from None

    def say_hello(self) -> None:
        """Out of turn, too: whether it has died meanwhile, or has a successor, shows at once."""
        self._say(FrontendHello(PROTOCOL, os.getpid(), self._incarnation))

    def welcome(self, incarnation: bytes) -> bool:
        """It is there.  Returns whether it is the successor of one that we knew."""
        self._welcomed_at = self._clock.now()
        known, self._incarnation = self._incarnation, incarnation
        self._cut_at = None
        self._met.set()
        if incarnation != known:
            # First, or what follows would be taken for meant for the one before.
            self.say_hello()
        return known not in (b"", incarnation)

    def cut(self) -> None:
        """Nobody takes what we say: knock until somebody does."""
        if self._cut_at is not None or not self._incarnation:
            return
        self._cut_at = self._clock.now()
        self._met.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._wake_in(KNOCK_INTERVAL_S)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _greet(self) -> None:
        now = self._clock.now()
        self._timer = None
        if self._cut_at is None and now - self._welcomed_at > LOST_AFTER_S:
            self.cut()
        self.say_hello()
        if self._cut_at is not None:
            self._on_knock(now - self._cut_at)
        if self._timer is None:
            is_met = bool(self._incarnation) and self._cut_at is None
            self._wake_in(HELLO_INTERVAL_S if is_met else KNOCK_INTERVAL_S)

    def _wake_in(self, delay_s: float) -> None:
        assert self._loop is not None
        self._timer = self._loop.call_later(delay_s, self._greet)
