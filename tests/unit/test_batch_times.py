"""How long a batch takes, by its size, learned from batches that were done."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.supervisor.batch_times import BatchTimes


def learn(fixed_s, each_s, sizes):
    times = BatchTimes()
    for second, size in enumerate(sizes):
        times.note(10, 10 * size, 10 * (fixed_s + each_s * size), float(second))
    return times


def test_nothing_is_known_before_the_first_batch():
    assert BatchTimes().expect_s(8) is None


@given(st.floats(0.001, 1), st.floats(0, 0.1), st.lists(st.integers(1, 16), min_size=4))
def test_the_line_through_what_was_seen_is_found(fixed_s, each_s, sizes):
    """
    Then fuller batches are not mistaken for more work, nor more work for fuller batches.
    """
    sizes = [1, 16, *sizes]

    times = learn(fixed_s, each_s, sizes)

    assert times.expect_s(32) == pytest.approx(fixed_s + 32 * each_s, rel=1e-3)


def test_without_a_second_size_more_is_taken_to_cost_more():
    """
    Whoever has only ever seen single requests must not count on batches being free.
    """
    times = learn(0.1, 0.0, [1, 1, 1])

    assert times.expect_s(8) == pytest.approx(0.8)


def test_old_batches_count_for_less_and_less():
    """
    A handler may become slower, when its host does.
    """
    times = BatchTimes()
    times.note(100, 100, 10.0, 0.0)
    times.note(100, 100, 50.0, 600.0)

    assert times.expect_s(1) == pytest.approx(0.5, rel=0.01)
