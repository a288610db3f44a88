"""Requests under way to each model, and what to do when its queue is full.

A lane is closed when the supervisor says that the queue is full, or refuses
for that reason: from then on one request is let in for each that comes out,
and the others are refused here, without asking and before their bodies are
read.  Places also become free in ways that nobody here hears of, so every
moment (`place_every_s`) the lane lets one more in to see, then two, then four;
a refusal begins that anew, and a lane that lets in many without one is open
again.  Hence nobody is refused for longer than such a moment while there is
room.

"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from stoker.clock import Clock
from stoker.errors import QueueFull, TooManyRequests
from stoker.shares import GREED, may_take
from stoker.wire.frames import FullQueue

#: However fast places become free, a closed lane asks no more often than this...
MIN_MOMENT_S: Final = 0.005
#: ... and however slowly, no less often.
MAX_MOMENT_S: Final = 0.1
#: A lane that may let in so many at once to see has seen enough.
OPEN_STEP: Final = 64
#: A closed lane at whose end nobody was for so many moments is open again.
FORGOTTEN_MOMENTS: Final = 16
#: Lanes kept though nobody is on them.
MAX_IDLE_LANES: Final = 1024

#: Model, and version as the client named it; None for the default one.
Key = tuple[str, str | None]
#: In a key: the version whose turn it is.
TURNS: Final = ""


class Holding:
    """What one model holds of what all models share here."""

    __slots__ = ("body_bytes",)

    def __init__(self) -> None:
        self.body_bytes = 0


class Lane:
    """The way to one model's queue.

    Attributes:
        in_flight: Requests handed to the supervisor and not ended.
        limit: Of those, while closed; None while open.
        retry_after_s: What a refused client is told.
        refused: Requests refused here and not reported yet.
    """

    __slots__ = (
        "_forget_at",
        "_look_at",
        "_moment_s",
        "_on_full",
        "_step",
        "in_flight",
        "key",
        "limit",
        "refused",
        "retry_after_s",
    )

    def __init__(self, key: Key, on_full: Callable[[Lane, QueueFull], None] | None = None) -> None:
        self.key = key
        self._on_full = on_full
        self.in_flight = 0
        self.limit: int | None = None
        self.retry_after_s = 1
        self.refused = 0
        self._moment_s = MIN_MOMENT_S
        self._step = 1
        self._look_at = 0.0
        self._forget_at = 0.0

    def close(self, now: float, place_every_s: float, retry_after_s: int) -> None:
        """The queue is full: what is in flight now is what it has room for."""
        self.limit = self.in_flight
        self.retry_after_s = retry_after_s
        self._moment_s = min(max(MIN_MOMENT_S, place_every_s), MAX_MOMENT_S)
        self._step = 1
        self._look_at = now + self._moment_s
        self._forget_at = now + FORGOTTEN_MOMENTS * self._moment_s

    def may_enter(self, now: float) -> bool:
        """Ask for every request; a lane that is open says yes."""
        if self.limit is None or self.in_flight < self.limit:
            return True
        if now < self._look_at:
            self.refused += 1
            return False
        if self._step >= OPEN_STEP or now >= self._forget_at:
            self.limit = None
            return True
        self.limit = self.in_flight + self._step
        self._step *= 2
        self._look_at = now + self._moment_s
        self._forget_at = now + FORGOTTEN_MOMENTS * self._moment_s
        return True

    def ended(self, outcome: object) -> None:
        """A request that was in flight has come to its end."""
        self.in_flight -= 1
        if type(outcome) is QueueFull and self._on_full is not None:
            self._on_full(self, outcome)

    def full(self) -> QueueFull:
        model, version = self.key
        return QueueFull(
            f"The queue of model {model} is full; try again later.",
            model=model,
            version=version,
            retry_after_s=self.retry_after_s,
        )


class Lanes:
    """All lanes of one process.

    Args:
        clock: The lanes themselves are told the time.
        max_in_flight: Requests of all models together.

    Attributes:
        closed: The lanes that are not open, so that nobody looks for one while
            there is none.
    """

    def __init__(self, clock: Clock, max_in_flight: int) -> None:
        self.closed: dict[Key, Lane] = {}
        self._clock = clock
        self._max_in_flight = max_in_flight
        #: Below this nobody can have more than a share of what is free.
        self._crowded = max_in_flight - max_in_flight // (GREED + 1)
        self._lanes: dict[Key, Lane] = {}
        self._holdings: dict[str, Holding] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    def of(self, key: Key) -> Lane:
        lane = self._lanes.get(key)
        if lane is None:
            if len(self._lanes) >= MAX_IDLE_LANES:
                self._forget(lane for lane in self._lanes.values() if not lane.in_flight)
            lane = self._lanes[key] = Lane(key, self._close)
        return lane

    def enter(self, key: Key, in_flight: int) -> Lane:
        """The lane of a request that may be handed over now; its caller counts it.

        Args:
            in_flight: Requests of all models together.

        Raises:
            QueueFull: The queue has no room, as far as we know.
            TooManyRequests: The places that are left are for other models.
        """
        if self.closed and (closed := self.refusing(key)) is not None:
            raise closed.full()
        if in_flight >= self._crowded:
            self._check_share(key, in_flight)
        return self.of(key)

    def holding(self, model: str) -> Holding:
        """What a model holds; the same record for as long as it holds anything."""
        holding = self._holdings.get(model)
        if holding is None:
            if len(self._holdings) >= MAX_IDLE_LANES:
                held = self._holdings.items()
                self._holdings = {model: kept for model, kept in held if kept.body_bytes}
            holding = self._holdings[model] = Holding()
        return holding

    def close_full(self, queue: FullQueue) -> None:
        """The supervisor says that a queue is full."""
        model, version, is_default, place_every_s, retry_after_s = queue
        for asked in (version, None) if is_default else (version,):
            lane = self.of((model, asked))
            lane.close(self._clock.now(), place_every_s, retry_after_s)
            self.closed[lane.key] = lane

    def take_refused(self) -> list[list[object]]:
        """Model, version and number of those refused here since the last call."""
        taken: list[list[object]] = []
        for lane in self._lanes.values():
            if lane.refused:
                taken.append([*lane.key, lane.refused])
                lane.refused = 0
        return taken

    def _close(self, lane: Lane, error: QueueFull) -> None:
        told = error.details
        every_s, retry_after_s = told.get("place_every_s", 0.0), told.get("retry_after_s", 1)
        lane.close(self._clock.now(), every_s, retry_after_s)
        self.closed[lane.key] = lane

    def refusing(self, key: Key) -> Lane | None:
        """The closed lane that refuses this request; None: let it in."""
        lane = self.closed.get(key)
        if lane is None:
            return None
        if lane.may_enter(self._clock.now()):
            if lane.limit is None:
                del self.closed[key]
            return None
        return lane

    def _check_share(self, key: Key, in_flight: int) -> None:
        own = sum(lane.in_flight for lane in self._lanes.values() if lane.key[0] == key[0])
        if not may_take(1, own, in_flight, self._max_in_flight):
            raise TooManyRequests(
                "Too many requests are waiting; try again later.",
                model=key[0],
                limit=self._max_in_flight,
            )

    def _forget(self, lanes: Iterable[Lane]) -> None:
        for lane in list(lanes):
            del self._lanes[lane.key]
            self.closed.pop(lane.key, None)
