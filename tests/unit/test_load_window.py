"""What the last seconds were like."""

from __future__ import annotations

import random

import pytest

from stoker.supervisor.load_window import (
    ENOUGH,
    RATE_S,
    LoadWindow,
    Totals,
    longer_than,
    quantile_s,
    variation,
)

LOOK_S = 0.25
BOUNDS = (0.1, 0.2, 0.5)


def window_of(counts, start=100.0):
    """Looks with so many arrivals before each."""
    window, total, now = LoadWindow(), 0, start
    for count in (0, *counts):
        total += count
        window.note(Totals(now, total, (0, 0, 0, 0), 0.0))
        now += LOOK_S
    return window


def test_a_high_rate_is_known_after_a_second():
    """
    A step must be seen soon.
    """
    window = window_of([1] * 60 + [ENOUGH] * 4)

    assert window.rate().per_s == pytest.approx(ENOUGH / LOOK_S)


def test_a_low_rate_is_taken_over_longer():
    """
    One request in a look is no four in a second.
    """
    window = window_of([0, 0, 0, 1] * 15)

    assert window.rate().per_s == pytest.approx(1.0, rel=0.1)


def test_what_comes_in_clumps_says_less():
    rng = random.Random(1)
    even = window_of([3] * 60).rate()
    clumped = window_of([30 if rng.random() < 0.1 else 0 for _ in range(60)]).rate()

    assert clumped.noise_per_s / clumped.per_s > 2 * even.noise_per_s / even.per_s


def test_steady_growth_is_seen_and_chance_is_not():
    growing = window_of([10 + step for step in range(60)])
    steady = window_of([10] * 60)

    assert growing.growth_per_s() == pytest.approx(1 / LOOK_S**2, rel=0.2)
    assert steady.growth_per_s() == 0.0


def test_a_pause_is_no_low_rate():
    """
    A version that slept was not looked at; what was before is no measure of what is now.
    """
    window = window_of([50] * 20)
    window.note(Totals(500.0, 1001, (0, 0, 0, 0), 0.0))
    window.note(Totals(500.25, 1002, (0, 0, 0, 0), 0.0))

    assert window.rate().per_s == pytest.approx(1.0)


def test_waits_are_those_of_the_last_seconds_and_since_the_mark():
    window = LoadWindow()
    for second in range(15):
        window.note(Totals(float(second), 0, (second, 0, 0, 0), 0.0))

    assert sum(window.waits()) == RATE_S
    window.count_waits_from(12.0)
    assert sum(window.waits()) == 2


@pytest.mark.parametrize(
    ("counts", "share", "wait_s"),
    [
        ([0, 0, 0, 0], 0.99, None),
        ([100, 0, 0, 0], 0.5, 0.05),
        ([98, 0, 2, 0], 0.99, 0.35),
        ([0, 0, 0, 5], 0.99, 0.5),
    ],
)
def test_quantiles_come_from_buckets(counts, share, wait_s):
    """
    Beyond the last bucket nothing is known but that it was longer.
    """
    found = quantile_s(counts, BOUNDS, share)

    assert found == (None if wait_s is None else pytest.approx(wait_s))


@pytest.mark.parametrize(("limit_s", "late"), [(0.1, 7), (0.15, 6), (0.5, 1), (9.0, 1)])
def test_who_waited_longer_is_counted_by_parts_of_a_bucket(limit_s, late):
    assert longer_than([3, 2, 4, 1], BOUNDS, limit_s) == pytest.approx(late)


@pytest.mark.parametrize(
    ("counts", "total", "found"), [([0, 0, 9, 0], 3.15, 0.0), ([9, 0, 0, 1], 1, 2)]
)
def test_times_that_vary_are_told_from_times_that_do_not(counts, total, found):
    """
    As far as buckets tell.
    """
    assert variation(counts, BOUNDS, total) == pytest.approx(found, abs=0.3)
