"""Who gets the next batch, and how many one worker may hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stoker.supervisor.dispatch import (
    AHEAD_S,
    DEEP_AHEAD_S,
    DEFAULT_CREDIT,
    GATHERING_S,
    MAX_CREDIT,
    MAX_GATHERED_S,
    MIN_GATHERED_S,
    SLOW_S,
    choose_busy,
    credit,
    deep_credit,
    gathering_s,
    may_hold_more,
)
from stoker.supervisor.workers import Batch, Worker, WorkerState

TIMES = st.floats(0, 1000, allow_nan=False)
SHORT_TIMES = st.floats(MIN_GATHERED_S, MAX_GATHERED_S)


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

    chosen = choose_busy(workers, 3, 0)

    assert chosen is workers[1]


def test_no_worker_beyond_its_credit_is_chosen():
    full = busy_worker(1, credit(0.0001, 2))

    assert choose_busy([full, busy_worker(2, 1, service_time_s=1.0)], 2, 100) is None


def test_only_busy_workers_are_looked_at():
    """
    Idle ones are found elsewhere; those that leave or die get nothing.
    """
    workers = []
    for number, state in enumerate(WorkerState):
        worker = busy_worker(number, 1)
        worker.state = state
        workers.append(worker)

    chosen = choose_busy(workers, len(workers), 0)

    assert chosen is not None
    assert chosen.state is WorkerState.BUSY


@given(
    st.lists(st.tuples(st.integers(1, 40), st.none() | TIMES | SHORT_TIMES), max_size=8),
    st.integers(0, 400),
)
def test_whoever_is_chosen_had_credit_left(rows, waiting):
    workers = [busy_worker(n, held, service) for n, (held, service) in enumerate(rows)]

    chosen = choose_busy(workers, len(workers), waiting)

    with_room = [w for w in workers if may_hold_more(w, len(workers), waiting)]
    if chosen is None:
        assert with_room == []
    else:
        assert len(chosen.in_hand) == min(len(w.in_hand) for w in with_room)
        assert chosen in with_room


# -- short batches, and many that wait ------------------------------------------------------


@given(SHORT_TIMES, st.integers(1, 8), st.integers(0, 400))
def test_while_many_wait_a_worker_of_short_batches_holds_milliseconds_of_them(
    service_time_s, workers, waiting
):
    """
    Never so many that others would find nothing left when they become free.
    """
    worker = busy_worker(1, 1, service_time_s)
    left = waiting
    while left and may_hold_more(worker, workers, left):
        worker.in_hand.append(Batch(0, []))
        left -= 1

    held = len(worker.in_hand)
    if held > credit(service_time_s, workers):
        assert held * service_time_s <= DEEP_AHEAD_S * 1.000001
        assert left >= (held - 1) * workers - 1
    elif waiting > 100 * workers:
        raise AssertionError("it was given no more than if nobody waited")


@given(st.none() | TIMES, st.integers(1, 8), st.integers(1, 40))
def test_without_a_queue_nobody_holds_more_than_the_credit(service_time_s, workers, held):
    worker = busy_worker(1, held, service_time_s)

    assert may_hold_more(worker, workers, 0) == (held < credit(service_time_s, workers))


@given(st.floats(MAX_GATHERED_S, 1000, exclude_min=True), st.integers(1, 8), st.integers(0, 400))
def test_longer_batches_are_never_held_because_many_wait(service_time_s, workers, waiting):
    assert deep_credit(service_time_s) == 0
    worker = busy_worker(1, credit(service_time_s, workers), service_time_s)
    assert not may_hold_more(worker, workers, waiting)


@given(st.none() | TIMES | SHORT_TIMES, st.integers(1, 40))
def test_a_worker_that_is_left_alone_has_enough_to_do_meanwhile(service_time_s, held):
    """
    And whoever waits for its answers hears them within some milliseconds.
    """
    for_s = gathering_s(busy_worker(1, held, service_time_s))

    assert 0.0 <= for_s <= GATHERING_S
    if for_s:
        assert service_time_s is not None
        assert for_s <= (held - 2) * service_time_s


def test_answers_of_a_short_handler_gather_only_while_it_is_busy():
    worker = busy_worker(1, 8, 0.000_5)
    assert gathering_s(worker) == 0.002

    worker.state = WorkerState.DRAINING
    assert gathering_s(worker) == 0.0
