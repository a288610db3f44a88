"""How many workers keep the wait short."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.supervisor.congestion import LATE_SHARE, late_share, workers_for

LOADS = st.floats(0.01, 30)
TIMES = st.floats(0.001, 10)


def test_no_load_needs_no_worker():
    assert workers_for(0.0, 0.1, 0.25, 10) == 0


def test_more_load_than_workers_is_always_late():
    assert late_share(2, 2.0, 0.1, 0.25) == 1.0


@given(LOADS, TIMES, TIMES)
def test_more_workers_and_more_patience_never_make_it_worse(load, service_s, target_s):
    counts = range(1, 40)
    shares = [late_share(count, load, service_s, target_s) for count in counts]

    assert shares == sorted(shares, reverse=True)
    assert all(0 <= share <= 1 for share in shares)
    assert late_share(8, load, service_s, 2 * target_s) <= late_share(8, load, service_s, target_s)


@given(LOADS, TIMES, TIMES)
def test_the_count_is_the_least_that_keeps_to_the_target(load, service_s, target_s):
    most = 64

    count = workers_for(load, service_s, target_s, most)

    assert late_share(count, load, service_s, target_s) <= LATE_SHARE
    if count > 1:
        assert late_share(count - 1, load, service_s, target_s) > LATE_SHARE


@given(LOADS, TIMES, TIMES)
def test_what_no_count_can_do_is_one_too_many(load, service_s, target_s):
    """
    The caller learns that the bound is in the way.
    """
    count = workers_for(load, service_s, target_s, 3)

    assert count <= 4
    if count == 4:
        assert late_share(3, load, service_s, target_s) > LATE_SHARE


@pytest.mark.parametrize(("workers", "load"), [(1, 0.6), (3, 2.2), (8, 6.5)])
def test_the_formula_says_what_a_queue_does(workers, load):
    """
    Against a queue that is played through: random arrivals, random times, many servers.
    """
    rng, free_at, arrived, late = random.Random(1), [0.0] * workers, 0.0, 0
    for _ in range(200_000):
        arrived += rng.expovariate(load)
        free_at.sort()
        begun = max(arrived, free_at[0])
        late += begun - arrived > 1.0
        free_at[0] = begun + rng.expovariate(1.0)

    assert late / 200_000 == pytest.approx(late_share(workers, load, 1.0, 1.0), rel=0.12)
