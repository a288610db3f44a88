"""How many workers there should be."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.supervisor.load_window import Rate
from stoker.supervisor.scaling import (
    MISSED_S,
    Load,
    ScalingPolicy,
    ScalingState,
    decide,
    wanted_workers,
)

COUNTS = st.integers(0, 50)


@pytest.mark.parametrize(
    ("current", "low", "high", "wanted"),
    [
        (0, 2, 2, 2),
        (0, 2, 5, 2),
        (1, 2, 5, 2),
        (3, 2, 5, 3),
        (7, 2, 5, 5),
        (3, 0, 0, 0),
        (3, 0, 5, 3),
        (3, 0, 2, 2),
        (9, 4, 1, 4),
    ],
)
def test_the_peers_rule(current, low, high, wanted):
    """
    contracts/torchserve.md 3.5; a minimum above the maximum wins (issue 2038 there).
    """
    assert wanted_workers(current, low, high) == wanted


@given(COUNTS, COUNTS, COUNTS)
def test_the_outcome_is_within_bounds_and_stays(current, low, extra):
    """
    Asking the same twice changes nothing.
    """
    high = low + extra

    wanted = wanted_workers(current, low, high)

    assert low <= wanted <= high
    assert wanted_workers(wanted, low, high) == wanted
    if low <= current <= high:
        assert wanted == current


# -- between two bounds ---------------------------------------------------------

POLICY = ScalingPolicy(1, 8, target_s=0.25, max_idle_s=60.0)
NOW = 1000.0


def load_of(workers: int, per_s: float = 0.0, **facts: Any) -> Load:
    noise = facts.pop("noise_per_s", per_s / 20)
    facts = {
        "ready": workers,
        "arrived": math.ceil(per_s),
        "batch_s": 0.1,
        "begun": round(per_s * 10),
        **facts,
    }
    return Load(workers=workers, rate=Rate(per_s, noise), **facts)


def run(policy: ScalingPolicy, loads: Iterable[tuple[float, Load]]) -> list[tuple[int, str]]:
    """One decision after the other, each with what the one before remembered."""
    state, said = ScalingState(active_at=NOW, settled_at=NOW), []
    for now, load in loads:
        wanted, reason, state = decide(policy, state, load, now)
        said.append((wanted, reason))
    return said


@given(
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(0, 12),
    st.integers(0, 12),
    st.floats(0, 1000),
    st.floats(0, 300),
    st.floats(-50, 50),
    st.none() | st.floats(0, 30),
    st.integers(0, 2000),
    st.integers(0, 64),
    st.integers(0, 5000),
    st.floats(0, 1),
    st.none() | st.floats(0, 100),
    st.booleans(),
    st.integers(0, 10),
    st.booleans(),
)
def test_whatever_is_measured_the_count_is_within_its_bounds(
    low, extra, workers, ready, per_s, noise, growth, batch_s, queued, in_hand, begun, late,
    start_s, has_drained, room, is_recovering,
):  # fmt: skip
    """
    And where memory or deaths forbid more, there are not more.
    """
    policy = ScalingPolicy(low, low + extra, batch_size=4)
    load = Load(
        workers,
        min(ready, workers),
        Rate(per_s, noise),
        growth_per_s=growth,
        batch_s=batch_s,
        queued=queued,
        in_hand=in_hand,
        late=late * begun,
        begun=begun,
        start_s=start_s,
        has_drained=has_drained,
        room=room,
        is_recovering=is_recovering,
    )

    wanted, reason, _ = decide(policy, ScalingState(NOW), load, NOW)

    assert low <= wanted <= low + extra
    assert reason
    if workers >= low:
        assert wanted <= workers + room
        assert wanted <= workers or not is_recovering


def test_more_load_has_more_workers_before_anybody_waits() -> None:
    (decision,) = run(POLICY, [(NOW, load_of(2, per_s=30.0))])

    assert decision == (5, "the load needs more")


def test_a_load_that_grows_is_met_where_it_will_be() -> None:
    """
    A worker that takes ten seconds to start is started ten seconds early.
    """
    steady = load_of(3, per_s=15.0, start_s=10.0)
    growing = steady._replace(growth_per_s=1.0)

    assert [wanted for wanted, _ in run(POLICY, [(NOW, steady), (NOW, growing)])] == [3, 4]


def test_a_queue_that_drains_in_time_starts_nobody() -> None:
    """
    A worker would be ready when everything is done.
    """
    drains = load_of(1, per_s=1.0, queued=20, start_s=5.0)
    does_not = load_of(1, per_s=1.0, queued=200, start_s=5.0)

    quick, slow = run(POLICY, [(NOW, drains), (NOW, does_not)])

    assert quick[0] == 1
    assert slow == (4, "the queue would not drain")


def test_long_waits_add_a_worker_whatever_the_formula_says() -> None:
    """
    A handler may vary more than the formula assumes.
    """
    late = load_of(2, per_s=5.0, begun=100, late=10.0)

    assert run(POLICY, [(NOW, late)]) == [(3, "requests wait too long")]


def test_one_request_that_waited_is_chance() -> None:
    late = load_of(2, per_s=5.0, begun=100, late=2.0)

    assert run(POLICY, [(NOW, late)])[0][0] == 2


@pytest.mark.parametrize("why", [{"ready": 2}, {"has_drained": False}])
def test_nobody_is_added_for_waits_that_a_new_worker_may_end(why: dict[str, Any]) -> None:
    """
    Else the second is started because the first has not had its effect yet.
    """
    late = load_of(3, per_s=5.0, begun=100, late=10.0, **why)

    assert run(POLICY, [(NOW, late)])[0][0] == 3


def test_a_count_that_was_too_low_is_not_tried_again_at_that_load() -> None:
    """
    Else it would swing between what the formula says and what clients feel.
    """
    late = load_of(2, per_s=5.0, begun=100, late=10.0)
    calm = load_of(3, per_s=5.0)
    looks = [(NOW + t, calm) for t in range(1, int(MISSED_S))]

    said = run(POLICY, [(NOW, late), *looks])

    assert {wanted for wanted, _ in said} == {3}
    less = load_of(3, per_s=2.0, batch_s=0.02)
    later = [(NOW + t, less) for t in range(1, 70)]
    assert (1, "fewer have been enough") in run(POLICY, [(NOW, late), *later])


def test_fewer_only_after_they_would_have_done_all_the_time() -> None:
    """
    One busy moment within `max_idle_s` says that the worker is needed.
    """
    calm, busy = load_of(4, per_s=5.0), load_of(4, per_s=20.0)
    before = [(NOW + t, calm) for t in range(50)]
    after = [(NOW + 51 + t, calm) for t in range(61)]

    said = run(POLICY, [*before, (NOW + 50, busy), *after])

    assert {wanted for wanted, _ in said[:-1]} == {4}
    assert said[-1] == (2, "fewer have been enough")


def test_after_a_spike_the_count_falls_as_far_as_it_may_at_once() -> None:
    """
    Each look counts for `max_idle_s` and no longer, the slow decay of a measured rate included.
    """
    decay = [(NOW + t, load_of(8, per_s=50.0 - 5 * t)) for t in range(10)]
    calm = [(NOW + 10 + t, load_of(8, per_s=0.3)) for t in range(65)]

    said = [wanted for wanted, _ in run(POLICY, [*decay, *calm])]

    assert said[:60] == [8] * 60
    assert said[-1] == 1
    assert said == sorted(said, reverse=True)


def test_idle_goes_to_the_minimum_at_once() -> None:
    policy = ScalingPolicy(0, 8, max_idle_s=60.0)
    idle = [(NOW + t, load_of(5)) for t in (0.0, 59.0, 60.0)]

    assert [wanted for wanted, _ in run(policy, idle)] == [5, 5, 0]


def test_what_is_costly_to_start_is_kept_for_longer() -> None:
    calm = load_of(4, per_s=5.0, start_s=100.0)

    said = run(POLICY, [(NOW + t, calm) for t in (0.0, 199.0, 200.0)])

    assert [wanted for wanted, _ in said] == [4, 4, 2]


def test_memory_and_deaths_hold_growth_back_and_say_so() -> None:
    """
    Never the minimum: what an operator wants at least is tried.
    """
    grows = load_of(2, per_s=30.0)
    said = run(
        POLICY,
        [
            (NOW, grows._replace(room=1)),
            (NOW, grows._replace(room=0)),
            (NOW, grows._replace(is_recovering=True)),
            (NOW, load_of(0, room=0)),
        ],
    )

    assert said == [
        (3, "more are needed than there is memory for"),
        (2, "more are needed than there is memory for"),
        (2, "workers died and are being replaced"),
        (1, "fewer than the minimum"),
    ]
