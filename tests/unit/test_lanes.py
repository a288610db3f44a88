"""What a frontend does about a queue that is full."""

from __future__ import annotations

import random

import pytest

from stoker.clock import FakeClock
from stoker.errors import NoWorker, QueueFull, TooManyRequests
from stoker.frontend.lanes import (
    FORGOTTEN_MOMENTS,
    MAX_IDLE_LANES,
    MAX_MOMENT_S,
    MIN_MOMENT_S,
    Lane,
    Lanes,
)
from stoker.wire.frames import FullQueue

NOW = 1000.0
KEY = ("echo", None)


def busy(in_flight: int) -> Lane:
    lane = Lane(KEY)
    lane.in_flight = in_flight
    return lane


def test_an_open_lane_lets_everybody_in():
    assert all(busy(n).may_enter(NOW) for n in (0, 1, 1000))


def test_a_closed_lane_lets_one_in_for_each_that_comes_out():
    """
    So the queue stays full, which is what it is for, and nobody asks in vain.
    """
    lane = busy(100)
    lane.close(NOW, 0.005, 1)

    assert not lane.may_enter(NOW)
    lane.in_flight -= 1
    assert lane.may_enter(NOW)
    lane.in_flight += 1
    assert not lane.may_enter(NOW)
    assert lane.refused == 2


@pytest.mark.parametrize(
    ("place_every_s", "moment_s"),
    [(0.0, MIN_MOMENT_S), (0.02, 0.02), (5.0, MAX_MOMENT_S)],
    ids=["unknown", "measured", "slow"],
)
def test_every_moment_a_closed_lane_looks_again(place_every_s, moment_s):
    """
    Another process's jobs leave, a worker is added: nobody here hears of it.
    """
    lane = busy(100)
    lane.close(NOW, place_every_s, 1)

    assert not lane.may_enter(NOW + 0.99 * moment_s)
    assert lane.may_enter(NOW + moment_s)
    lane.in_flight += 1
    assert not lane.may_enter(NOW + moment_s)


def test_a_lane_that_finds_room_opens_within_moments():
    """
    However many clients wait outside: it lets in twice as many each time.
    """
    lane, now, moments = busy(0), NOW, 0
    lane.close(NOW, 0.01, 1)
    while lane.limit is not None:
        now += 0.01
        moments += 1
        while lane.limit is not None and lane.may_enter(now):
            lane.in_flight += 1

    assert moments <= 8
    assert lane.in_flight >= 63


def test_a_refusal_makes_the_lane_careful_again():
    """
    Looking costs the supervisor something each time.
    """
    lane = busy(10)
    lane.close(NOW, 0.01, 1)
    for n in (1, 2, 3):
        while lane.may_enter(NOW + n * 0.01):
            lane.in_flight += 1
    assert lane.in_flight == 10 + 1 + 2 + 4

    lane.in_flight = 11
    lane.close(NOW + 0.03, 0.01, 1)

    assert not lane.may_enter(NOW + 0.03)
    assert lane.may_enter(NOW + 0.04)
    lane.in_flight += 1
    assert not lane.may_enter(NOW + 0.04)


def test_a_closed_lane_is_forgotten_when_nobody_came():
    """
    Whoever comes much later shall not find last hour's queue.
    """
    lane = busy(0)
    lane.close(NOW, 0.01, 1)

    assert lane.may_enter(NOW + FORGOTTEN_MOMENTS * 0.01)
    assert lane.limit is None


def test_good_work_does_not_suffer():
    """
    A queue of 10 behind one worker, far more clients than places: the worker
    is never without work, and one in a moment is asked about in vain.
    """
    rng = random.Random(7)
    lane, now, waiting, idle, asked = Lane(KEY), NOW, 0, 0, 0
    for step in range(100_000):
        now += 0.0001
        if step % 50 == 0 and (lane.in_flight or waiting):  # every 5 ms one is done
            idle += waiting == 0
            waiting = max(0, waiting - 1)
            lane.in_flight = waiting
        for _ in range(rng.randint(0, 4)):
            if not lane.may_enter(now):
                continue
            asked += 1
            if waiting < 10:
                waiting += 1
                lane.in_flight += 1
            else:
                lane.close(now, 0.005, 1)

    assert idle == 0
    assert asked <= 2 * 2000 + 10


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


def test_a_lane_is_closed_by_what_the_supervisor_answers(clock):
    """
    While none is closed, a request costs no look-up.
    """
    lanes = Lanes(clock, 100)
    lane = lanes.enter(KEY, 0)
    lane.in_flight += 1
    assert not lanes.closed

    lane.ended(QueueFull("full", place_every_s=0.01, retry_after_s=7))

    assert lane.in_flight == 0
    assert lanes.refusing(KEY) is lane
    assert lanes.refusing(("other", None)) is None
    with pytest.raises(QueueFull) as caught:
        lanes.enter(KEY, 0)
    assert caught.value.details == {"model": "echo", "version": None, "retry_after_s": 7}
    clock.advance(10)
    assert lanes.enter(KEY, 0) is lane
    assert not lanes.closed


@pytest.mark.parametrize("outcome", [object(), NoWorker(), None])
def test_other_ends_close_nothing(clock, outcome):
    lanes = Lanes(clock, 100)
    lane = lanes.enter(KEY, 0)
    lane.in_flight += 1

    lane.ended(outcome)

    assert (lane.in_flight, lane.limit) == (0, None)


def test_an_announcement_closes_both_names_of_the_default_version(clock):
    """
    Clients name the version or leave it out; the queue is the same.
    """
    lanes = Lanes(clock, 100)
    lanes.of(("echo", "2.0")).in_flight = 3

    lanes.close_full(FullQueue("echo", "2.0", True, 0.01, 1))
    lanes.close_full(FullQueue("other", "1.0", False, 0.01, 1))

    assert lanes.of(("echo", "2.0")).limit == 3
    assert {*lanes.closed} == {("echo", "2.0"), ("echo", None), ("other", "1.0")}


def test_one_model_leaves_places_for_another(clock):
    """
    Whatever its versions are called.
    """
    lanes = Lanes(clock, 80)
    lanes.of(("hot", None)).in_flight = 40
    lanes.of(("hot", "1.0")).in_flight = 30

    with pytest.raises(TooManyRequests):
        lanes.enter(("hot", "2.0"), 70)
    lanes.enter(("other", None), 70)


def test_lanes_of_names_that_nobody_serves_do_not_pile_up(clock):
    """
    Anybody can ask for any name.
    """
    lanes = Lanes(clock, 100)
    kept = lanes.of(("kept", None))
    kept.in_flight = 1
    held = lanes.holding("kept")
    held.body_bytes = 1
    for number in range(5 * MAX_IDLE_LANES):
        lanes.close_full(FullQueue(f"nobody {number}", "1.0", True, 0.0, 1))
        lanes.holding(f"nobody {number}")

    assert len(lanes) <= MAX_IDLE_LANES
    assert len(lanes.closed) <= MAX_IDLE_LANES
    assert len(lanes._holdings) <= MAX_IDLE_LANES
    assert lanes.of(("kept", None)) is kept
    assert lanes.holding("kept") is held
