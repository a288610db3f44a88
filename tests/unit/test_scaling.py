"""How many workers there should be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.supervisor.scaling import wanted_workers

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
