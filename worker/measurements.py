"""What a handler has counted and timed since it was last told to the supervisor.

Updates are added up here and leave together, about once a second and between
two batches, so that counting costs a handler a dictionary entry and nobody a
message.  How many series there are is bounded: labels are user code's.

Source: contracts/torchserve.md 7.5, 10.1 (buckets).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Final

from stoker.wire.frames import HISTOGRAM_BOUNDS, Measurement, Measurements
from stoker.worker.channel import Channel

INTERVAL_S: Final = 1.0
MAX_SERIES: Final = 1000
MAX_TEXT: Final = 256
MAX_LABELS: Final = 32
PREDICTION_TIME: Final = "PredictionTime"

#: Type, name, labels' names, labels' values.
Series = tuple[str, str, tuple[str, ...], tuple[str, ...]]


class Pending:
    """Updates that wait.

    Args:
        known: The metrics that are kept; None: all.
    """

    def __init__(self, known: Iterable[str] | None = None) -> None:
        self.dropped = 0
        self._known = None if known is None else frozenset(known)
        self._numbers: dict[Series, float] = {}
        self._counts: dict[Series, list[int]] = {}
        self._units: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def note(
        self,
        kind: str,
        name: str,
        unit: str,
        labels: tuple[str, ...],
        values: tuple[str, ...],
        number: float,
    ) -> None:
        """One update of one series."""
        if self._known is not None and name not in self._known:
            return
        series = (kind, name, labels, values)
        numbers = self._numbers
        known = numbers.get(series)
        if known is None:
            if len(numbers) >= MAX_SERIES or not _is_sound(series, number):
                self.dropped += 1
                return
            self._units[name] = unit
            known = 0.0
        if kind == "gauge":
            numbers[series] = float(number)
            return
        numbers[series] = known + number
        if kind == "histogram":
            counts = self._counts.setdefault(series, [0] * (len(HISTOGRAM_BOUNDS) + 1))
            counts[bisect_left(HISTOGRAM_BOUNDS, number)] += 1

    def take(self) -> list[Measurement]:
        """All of it; counting begins anew."""
        numbers, counts, units = self._numbers, self._counts, self._units
        self._numbers, self._counts, self._units = {}, {}, {}
        return [
            Measurement(
                series[0],
                series[1],
                units[series[1]],
                list(series[2]),
                list(series[3]),
                number,
                counts.get(series, []),
            )
            for series, number in numbers.items()
        ]


def _is_sound(series: Series, number: float) -> bool:
    _, name, labels, values = series
    if type(number) not in (int, float) or len(labels) > MAX_LABELS:
        return False
    return max(map(len, (name, *labels, *values))) <= MAX_TEXT


class Reporter:
    """An errand of the channel's: sends what is pending, and how long the latest batch took."""

    def __init__(
        self, channel: Channel, pending: Pending, model: str, clock: Callable[[], float]
    ) -> None:
        self._channel = channel
        self._pending = pending
        self._model = model
        self._sent_at = clock()

    def due_in(self, now: float) -> float | None:
        """Seconds; None when there is nothing to send."""
        if not self._pending and self._channel.took_s is None:
            return None
        return self._sent_at + INTERVAL_S - now

    def run(self, now: float) -> None:
        """Send it now.  Raises SupervisorGone."""
        self._sent_at = now
        took_s, self._channel.took_s = self._channel.took_s, None
        if took_s is not None:
            about = (("ModelName", "Level"), (self._model, "Model"))
            self._pending.note("gauge", PREDICTION_TIME, "ms", *about, took_s * 1000)
        if rows := self._pending.take():
            self._channel.send(Measurements(rows))
