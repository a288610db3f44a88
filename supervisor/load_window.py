"""What the last seconds of one version were like, from what is counted anyway.

A look (four a second) notes the running totals that `tally.py` keeps; rates
and waits are differences between two looks.  So a request pays nothing for it.

How much of a rate is chance is measured too: what comes in clumps says less
about what will come next than what comes evenly.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

#: How far back is remembered.
WINDOW_S: Final = 15.0
#: A rate is taken over the last second, or over as long as it takes for so
#: many requests to come, but over no more than RATE_S.
ENOUGH: Final = 50
SHORT_S: Final = 1.0
RATE_S: Final = 10.0
#: Three of these tell whether the rate grows.
TREND_S: Final = 5.0


class Totals(NamedTuple):
    """Running totals at one instant.

    Attributes:
        arrived: Requests asked for, refused ones included.
        waits: Jobs by how long they waited, in the buckets of `tally.TIME_BOUNDS`.
        busy_s: Time of workers that batches took, those in hand included.
    """

    at: float
    arrived: int
    waits: tuple[int, ...]
    busy_s: float


class Rate(NamedTuple):
    """Requests per second, and how much more or less the next look may say by chance."""

    per_s: float
    noise_per_s: float

    @property
    def low(self) -> float:
        return max(0.0, self.per_s - self.noise_per_s)

    @property
    def high(self) -> float:
        return self.per_s + self.noise_per_s


class LoadWindow:
    """The last looks, oldest first."""

    __slots__ = ("_totals", "_waits_from")

    def __init__(self) -> None:
        self._totals: deque[Totals] = deque()
        self._waits_from = -math.inf

    def note(self, totals: Totals) -> None:
        """One more look; after a pause everything before it is forgotten."""
        kept = self._totals
        if kept and totals.at - kept[-1].at > WINDOW_S / 2:
            kept.clear()
        kept.append(totals)
        while kept[0].at < totals.at - WINDOW_S:
            kept.popleft()

    def arrived(self) -> int:
        """Since the look before."""
        kept = self._totals
        return kept[-1].arrived - kept[-2].arrived if len(kept) > 1 else 0

    def count_waits_from(self, now: float) -> None:
        """How long was waited before now says nothing any more about how it is."""
        self._waits_from = now

    def rate(self, enough: float = ENOUGH) -> Rate:
        """Over the shortest time in which `enough` came; else over RATE_S."""
        kept = self._totals
        if len(kept) < 2 or kept[0].arrived == kept[-1].arrived:
            return Rate(0.0, 0.0)
        last = kept[-1]
        arrived, passed_s = 0, 0.0
        for then in reversed(kept):
            arrived, passed_s = last.arrived - then.arrived, last.at - then.at
            if passed_s >= RATE_S or (passed_s >= SHORT_S and arrived >= enough):
                break
        passed_s = max(passed_s, SHORT_S)
        noise = math.sqrt(arrived * self._clumping())
        return Rate(arrived / passed_s, noise / passed_s)

    def _clumping(self) -> float:
        """The variance of what comes between two looks, over its mean: 1 if it comes at random."""
        kept = self._totals
        counts = [new.arrived - old.arrived for old, new in pairwise(kept)]
        mean = sum(counts) / len(counts)
        if mean <= 0:
            return 1.0
        variance = sum((count - mean) ** 2 for count in counts) / len(counts)
        return max(1.0, variance / mean)

    def growth_per_s(self) -> float:
        """By how much the rate grows in a second, if it has for two steps in a row; else 0.0."""
        kept = self._totals
        last = kept[-1].at
        if kept[0].at > last - 2.9 * TREND_S or kept[0].arrived == kept[-1].arrived:
            return 0.0
        marks = [self._arrived_at(last - steps * TREND_S) for steps in (3, 2, 1, 0)]
        old, middle, new = (b - a for a, b in pairwise(marks))
        least = min(middle - old, new - middle)
        if least <= 0 or new - old < 3 * math.sqrt((new + old) * self._clumping()):
            return 0.0
        return least / TREND_S / TREND_S

    def _arrived_at(self, at: float) -> int:
        for totals in self._totals:
            if totals.at >= at:
                return totals.arrived
        return self._totals[-1].arrived

    def busy(self) -> float:
        """How many workers were busy, on average."""
        first, last = self._totals[0], self._totals[-1]
        passed_s = last.at - first.at
        return max(0.0, last.busy_s - first.busy_s) / passed_s if passed_s > 0 else 0.0

    def waits(self) -> list[int]:
        """How many waited how long, as far back as it counts; see `count_waits_from`."""
        since = max(self._waits_from, self._totals[-1].at - RATE_S)
        first = next((totals for totals in self._totals if totals.at >= since), self._totals[-1])
        return [new - old for old, new in zip(first.waits, self._totals[-1].waits, strict=True)]


def quantile_s(counts: Sequence[int], bounds: Sequence[float], share: float) -> float | None:
    """The wait that `share` of the jobs did not pass; None of no jobs.

    Within a bucket the jobs are taken to be spread evenly.
    """
    wanted = sum(counts) * share
    if not wanted:
        return None
    below, low = 0, 0.0
    for count, high in zip(counts, bounds, strict=False):
        if below + count >= wanted:
            return low + (high - low) * (wanted - below) / count
        below, low = below + count, high
    return low


def variation(counts: Sequence[int], bounds: Sequence[float], total: float) -> float:
    """Squared coefficient of variation of what was counted, whose sum is `total`.

    0 where all are alike, 1 where they vary as much as they are long.
    """
    number = sum(counts)
    if not number or total <= 0:
        return 0.0
    squares, low = 0.0, 0.0
    for count, high in zip(counts, bounds, strict=False):
        squares += count * (low * low + low * high + high * high) / 3
        low = high
    squares += counts[-1] * low * low
    mean = total / number
    return max(0.0, squares / number / (mean * mean) - 1)


def longer_than(counts: Sequence[int], bounds: Sequence[float], limit_s: float) -> float:
    """How many of the jobs waited longer than that, by the same rule."""
    late, low = 0.0, 0.0
    for count, high in zip(counts, bounds, strict=False):
        if low >= limit_s:
            late += count
        elif high > limit_s:
            late += count * (high - limit_s) / (high - low)
        low = high
    return late + counts[-1]
