"""Who gets the next batch, and how many one worker may hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stoker.supervisor.dispatch import (
    AHEAD_S,
    DEFAULT_CREDIT,
    MAX_CREDIT,
    SLOW_S,
    choose_busy,
    credit,
)
from stoker.supervisor.workers import Batch, Worker, WorkerState

TIMES = st.floats(0, 1000, allow_nan=False)


@given(st.none() | TIMES, st.integers(1, 100))
def test_credit_stays_between_one_and_its_maximum(service_time_s, workers):
    assert 1 <= credit(service_time_s, workers) <= MAX_CREDIT


@given(TIMES, TIMES, st.integers(1, 100))
def test_a_slower_worker_never_gets_more_credit(one, other, workers):
    """
    A job bound to a busy worker cannot go to another that becomes free.
    """
    assert credit(max(one, other), workers) <= credit(min(one, other), workers)


@given(st.none() | TIMES)
def test_a_lone_worker_always_holds_its_next_batch(service_time_s):
    """
    There is no other worker the batch could go to, so holding it costs nothing.
    """
    assert credit(service_time_s, 1) >= DEFAULT_CREDIT


@given(st.integers(2, 100))
def test_a_slow_worker_among_others_holds_only_what_it_works_on(workers):
    assert credit(SLOW_S, workers) == 1


@given(st.integers(2, 100))
def test_nothing_is_sent_ahead_to_a_stranger_among_others(workers):
    """
    Before its first answer nobody knows how long its batches take.
    """
    assert credit(None, workers) == 1


@given(st.floats(1e-7, AHEAD_S / DEFAULT_CREDIT))
def test_work_ahead_of_a_fast_worker_is_worth_a_millisecond(service_time_s):
    held = credit(service_time_s, 1)

    assert held * service_time_s <= AHEAD_S * 1.000001
    assert held == MAX_CREDIT or (held + 1) * service_time_s > AHEAD_S * 0.999999


def busy_worker(worker_id: int, held: int, service_time_s: float | None = 0.0001) -> Worker:
    worker = Worker(worker_id, 9000 + worker_id, None, 0.0)
    worker.state = WorkerState.BUSY
    worker.service_time_s = service_time_s
    worker.in_hand.extend(Batch(number, []) for number in range(held))
    return worker


def test_the_busy_worker_that_holds_the_fewest_is_chosen():
    workers = [busy_worker(1, 3), busy_worker(2, 2), busy_worker(3, 4)]

    chosen = choose_busy(workers, 3)

    assert chosen is workers[1]


def test_no_worker_beyond_its_credit_is_chosen():
    full = busy_worker(1, credit(0.0001, 2))

    assert choose_busy([full, busy_worker(2, 1, service_time_s=1.0)], 2) is None


def test_only_busy_workers_are_looked_at():
    """
    Idle ones are found elsewhere; those that leave or die get nothing.
    """
    workers = []
    for number, state in enumerate(WorkerState):
        worker = busy_worker(number, 1)
        worker.state = state
        workers.append(worker)

    chosen = choose_busy(workers, len(workers))

    assert chosen is not None
    assert chosen.state is WorkerState.BUSY


@given(st.lists(st.tuples(st.integers(1, 40), st.none() | TIMES), max_size=8))
def test_whoever_is_chosen_had_credit_left(rows):
    workers = [busy_worker(n, held, service) for n, (held, service) in enumerate(rows)]

    chosen = choose_busy(workers, len(workers))

    with_room = [w for w in workers if len(w.in_hand) < credit(w.service_time_s, len(workers))]
    if chosen is None:
        assert with_room == []
    else:
        assert len(chosen.in_hand) == min(len(w.in_hand) for w in with_room)
        assert chosen in with_room
