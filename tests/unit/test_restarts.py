"""When a lost worker is replaced, and when that is given up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.supervisor.restarts import DELAYS_S, STEADY_S, RestartRecord, after_death

#: contracts/torchserve.md 8.5.
PEER_DELAYS_S = [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597, 1597, 1597]


def delays(deaths: int, *, has_loaded: bool, life_s: float = 0.5) -> list[float]:
    """The waits after deaths in a row, each after a short life."""
    record, now, waits = RestartRecord(), 0.0, []
    for _ in range(deaths):
        loaded_at = now if has_loaded else None
        now += life_s
        restart = after_death(record, now=now, loaded_at=loaded_at, max_retry_s=float("inf"))
        assert restart.at is not None
        waits.append(restart.at - now)
        record, now = restart.record, restart.at
    return waits


def test_a_worker_that_never_loads_waits_as_the_peer_does():
    assert delays(19, has_loaded=False) == pytest.approx(PEER_DELAYS_S)


def test_the_first_replacement_of_a_loaded_worker_is_immediate():
    """
    Our departure: one death says nothing about the next.
    """
    assert delays(19, has_loaded=True) == pytest.approx([0, *PEER_DELAYS_S[:18]])


def test_a_worker_that_was_well_for_a_while_clears_the_account():
    """
    A death a day must not add up to a wait of minutes.
    """
    assert delays(10, has_loaded=True, life_s=STEADY_S) == [0.0] * 10


def test_a_worker_that_loads_and_dies_at_once_does_not_clear_the_account():
    """
    Else a handler that crashes on its first request would be restarted in a tight loop.
    """
    assert delays(8, has_loaded=True, life_s=STEADY_S - 0.01) == pytest.approx(
        [0, 1, 1, 2, 3, 5, 8, 13]
    )


def test_the_window_opens_with_the_first_death_and_then_closes():
    first = after_death(RestartRecord(), now=100.0, loaded_at=None, max_retry_s=300.0)
    inside = after_death(first.record, now=399.0, loaded_at=None, max_retry_s=300.0)
    outside = after_death(inside.record, now=400.0, loaded_at=None, max_retry_s=300.0)

    assert first.record.recovery_since == 100.0
    assert inside.at is not None
    assert outside.at is None


def test_a_window_of_no_length_still_grants_one_replacement():
    """
    Otherwise `maxRetryTimeoutInSec: 0` would mean that no death is survived.
    """
    first = after_death(RestartRecord(), now=5.0, loaded_at=1.0, max_retry_s=0.0)
    second = after_death(first.record, now=6.0, loaded_at=5.5, max_retry_s=0.0)

    assert first.at == 5.0
    assert second.at is None


@given(
    st.lists(
        st.tuples(st.floats(0.01, 30), st.booleans()),
        min_size=1,
        max_size=60,
    ),
    st.floats(0, 2000),
)
def test_no_history_gives_a_wait_that_is_not_in_the_table(lives, max_retry_s):
    """
    And giving up comes only after the window, never on the first death in a row.
    """
    record, now = RestartRecord(), 0.0
    for life_s, has_loaded in lives:
        loaded_at = now if has_loaded else None
        now += life_s
        is_first = record.deaths == 0 or (has_loaded and life_s >= STEADY_S)
        restart = after_death(record, now=now, loaded_at=loaded_at, max_retry_s=max_retry_s)
        since = restart.record.recovery_since
        assert since is not None
        if restart.at is None:
            assert not is_first
            assert now - since >= max_retry_s
            return
        assert any(restart.at - now == pytest.approx(wait) for wait in DELAYS_S)
        assert is_first or now - since < max_retry_s
        record, now = restart.record, restart.at
