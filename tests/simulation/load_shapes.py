"""Load over time: requests per second at an instant, for the autoscaler's simulation.

A shape is a function of the time since its begin, with its highest value (so
that arrivals can be drawn by thinning) and the instants at which it jumps.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

RECORDED = Path(__file__).parent / "recorded_load.json"


@dataclass(frozen=True)
class Shape:
    """One load.

    Attributes:
        jumps: When it rises faster than any worker can start.
        quiet_s: From here on nothing comes; the run goes on for a while.
    """

    name: str
    quiet_s: float
    highest_per_s: float
    rate_per_s: Callable[[float], float]
    jumps: Sequence[float] = ()

    def at(self, t: float) -> float:
        return self.rate_per_s(t) if 0 <= t < self.quiet_s else 0.0


def constant(per_s: float, quiet_s: float = 600.0) -> Shape:
    return Shape(f"constant {per_s:g}/s", quiet_s, per_s, lambda t: per_s, (0.0,))


def step(low: float = 2.0, high: float = 20.0, back_s: float = 240.0) -> Shape:
    def rate(t: float) -> float:
        return high if 60 <= t < back_s else low

    return Shape("step", back_s + 180, high, rate, (0.0, 60.0))


def ramp(high: float = 30.0, quiet_s: float = 420.0) -> Shape:
    def rate(t: float) -> float:
        return 1 + (high - 1) * min(1.0, t / 300)

    return Shape("ramp", quiet_s, high, rate, (0.0,))


def spike(low: float = 2.0, high: float = 40.0, long_s: float = 20.0) -> Shape:
    def rate(t: float) -> float:
        return high if 120 <= t < 120 + long_s else low

    return Shape("spike", 360.0, high, rate, (0.0, 120.0))


def sawtooth(low: float = 2.0, high: float = 25.0, period_s: float = 120.0) -> Shape:
    def rate(t: float) -> float:
        return low + (high - low) * (t % period_s) / period_s

    return Shape("sawtooth", 4 * period_s, high, rate, (0.0,))


def bursts(seed: int, low: float = 3.0, high: float = 25.0) -> Shape:
    """Times of much and of little, of random length each; requests at random within them."""
    rng = random.Random(seed)
    edges, t = [0.0], 0.0
    while t < 600:
        t += rng.expovariate(1 / 60) + 5  # little
        edges.append(t)
        t += rng.expovariate(1 / 25) + 5  # much
        edges.append(t)

    def rate(t: float) -> float:
        passed = sum(edge <= t for edge in edges)
        return low if passed % 2 else high

    return Shape("bursts", edges[-1], high, rate, (0.0, *edges[1::2]))


def diurnal(high: float = 25.0, day_s: float = 900.0) -> Shape:
    """A day in fifteen minutes: little at night, most in the afternoon, a dip at noon."""

    def rate(t: float) -> float:
        phase = 2 * math.pi * t / day_s
        curve = 0.5 - 0.42 * math.cos(phase) - 0.08 * math.cos(2 * phase + 0.6)
        return max(0.3, high * curve)

    return Shape("diurnal", day_s, high, rate, (0.0,))


def recorded() -> Shape:
    """What a server was asked by people, second by second (`benchmarks/scaling_runs.py`)."""
    counts: list[int] = json.loads(RECORDED.read_text())["requests_per_s"]
    smooth = [sum(part) / len(part) for i in range(len(counts)) if (part := counts[i : i + 5])]
    jumps = [0.0]
    for second in range(5, len(smooth)):
        rises = smooth[second] > 1.5 * smooth[second - 5] + 2
        if rises and second - jumps[-1] > 5:
            jumps.append(float(second))
    return Shape(
        "recorded",
        float(len(counts)),
        float(max(counts)),
        lambda t: float(counts[int(t)]),
        tuple(jumps),
    )
