"""What a refused client is told about when to come again."""

from __future__ import annotations

from collections import deque

import pytest

from stoker.supervisor.pace import MAX_RETRY_AFTER_S, place_every_s, retry_after_s
from stoker.supervisor.workers import Batch, Worker


def worker(took_s: float | None, *, busy_since: float | None = None) -> Worker:
    made = Worker(1, 9000, None, 0.0)
    made.service_time_s = took_s
    if busy_since is not None:
        made.batch_since = busy_since
        made.in_hand = deque([Batch(1, [])])
    return made


def test_places_become_free_as_fast_as_batches_end():
    """
    Two workers that take 10 ms for 4 jobs: one place every 1.25 ms.
    """
    assert place_every_s([worker(0.01), worker(0.01)], 4, 0.0) == pytest.approx(0.00125)


def test_a_worker_that_hangs_slows_the_pace():
    """
    What it took before says nothing about now.
    """
    assert place_every_s([worker(0.01, busy_since=5.0)], 1, 8.0) == 3.0


@pytest.mark.parametrize("took_s", [None, 0.0, 5e-324])
def test_no_pace_is_known_from_nothing(took_s):
    """
    A first batch is still out, or the clock saw no time pass.
    """
    assert place_every_s([worker(took_s)], 1, 0.0) == 0.0
    assert place_every_s([], 1, 0.0) == 0.0


@pytest.mark.parametrize(
    ("waiting", "every_s", "told"),
    [(100, 0.005, 1), (100, 0.0, 1), (10, 2.0, 10), (3, 1.0, 2), (10_000, 60.0, MAX_RETRY_AFTER_S)],
)
def test_come_again_when_half_of_the_queue_is_gone(waiting, every_s, told):
    """
    Whole seconds, at least one: the header knows nothing finer.
    """
    assert retry_after_s(waiting, every_s) == told
