"""How long a connection has waited, and for what: looked at now and then, not timed.

What happens on a connection only forgets; the sweep notes when it sees
something for the first time.  So waits are too long by up to one sweep, and a
request costs no look at the clock.
"""

from __future__ import annotations

import enum


class Wait(enum.Enum):
    """What a connection without a request in hand waits for."""

    REQUEST = "request"
    HEAD = "head"
    BODY = "body"
    #: The rest of a refused request, to go on with the next one.
    REST = "rest"
    #: Refused: we have answered and ignore what still comes.
    LEAVING = "leaving"


class Patience:
    """Of one connection.

    Attributes:
        since: When the sweep first saw it wait as it does; None: something has
            happened since.
    """

    __slots__ = ("_stalled_since", "_unsent_bytes", "_wait", "since")

    def __init__(self, now: float) -> None:
        self.since: float | None = now
        self._wait = Wait.HEAD
        self._unsent_bytes = 0
        self._stalled_since: float | None = None

    def waited_s(self, wait: Wait, now: float) -> float:
        if self.since is None or wait is not self._wait:
            self._wait, self.since = wait, now
        return now - self.since

    def stalled_s(self, unsent_bytes: int, now: float) -> float:
        """How long the client has taken nothing of what waits for it."""
        before, self._unsent_bytes = self._unsent_bytes, unsent_bytes
        if not unsent_bytes or unsent_bytes < before or self._stalled_since is None:
            self._stalled_since = now if unsent_bytes else None
            return 0.0
        return now - self._stalled_since
