"""One worker's life, cell by cell."""

from __future__ import annotations

import pytest

from stoker.supervisor.jobs import ImpossibleMove
from stoker.supervisor.workers import WORKER_MOVES, Worker, WorkerEvent, WorkerState

S, E = WorkerState, WorkerEvent

#: Written out a second time on purpose: the table is the promise.
EXPECTED = {
    (S.AWAITED, E.BACK): S.READY,
    (S.AWAITED, E.KILL): S.DYING,
    (S.AWAITED, E.EXITED): S.GONE,
    (S.STARTING, E.HELLO): S.LOADING,
    (S.STARTING, E.KILL): S.DYING,
    (S.STARTING, E.EXITED): S.GONE,
    (S.LOADING, E.LOADED): S.READY,
    (S.LOADING, E.LOAD_FAILED): S.DYING,
    (S.LOADING, E.KILL): S.DYING,
    (S.LOADING, E.EXITED): S.GONE,
    (S.READY, E.SENT): S.BUSY,
    (S.READY, E.RETIRE): S.DRAINING,
    (S.READY, E.KILL): S.DYING,
    (S.READY, E.EXITED): S.GONE,
    (S.BUSY, E.SENT): S.BUSY,
    (S.BUSY, E.ANSWERED): S.READY,
    (S.BUSY, E.STALL): S.STALLED,
    (S.STALLED, E.RESUME): S.BUSY,
    (S.STALLED, E.RETIRE): S.DRAINING,
    (S.STALLED, E.KILL): S.DYING,
    (S.STALLED, E.EXITED): S.GONE,
    (S.BUSY, E.RETIRE): S.DRAINING,
    (S.BUSY, E.KILL): S.DYING,
    (S.BUSY, E.EXITED): S.GONE,
    (S.DRAINING, E.ANSWERED): S.DRAINING,
    (S.DRAINING, E.KILL): S.DYING,
    (S.DRAINING, E.EXITED): S.GONE,
    (S.DYING, E.KILL): S.DYING,
    (S.DYING, E.EXITED): S.GONE,
}


@pytest.mark.parametrize("event", WorkerEvent)
@pytest.mark.parametrize("state", WorkerState)
def test_every_cell_of_the_table_is_as_drawn(state, event):
    """
    A pair that is missing is a bug in us, or a worker that lies.
    """
    worker = Worker(1, 9000, None, 0.0)
    worker.state = state

    assert worker.can(event) == ((state, event) in EXPECTED)
    if (state, event) in EXPECTED:
        worker.move(event)
        assert worker.state is EXPECTED[state, event]
    else:
        with pytest.raises(ImpossibleMove, match=f"a {state.value} worker cannot {event.value}"):
            worker.move(event)
        assert worker.state is state


def test_every_state_has_its_row_and_gone_is_the_end():
    assert set(WORKER_MOVES) == set(WorkerState)
    assert [state for state, moves in WORKER_MOVES.items() if not moves] == [S.GONE]


@pytest.mark.parametrize("state", WorkerState)
def test_every_process_can_exit_at_any_moment(state):
    """
    The one event nobody asks us about.
    """
    if state is not S.GONE:
        assert WORKER_MOVES[state][E.EXITED] is S.GONE


def test_who_is_told_to_go_gets_no_more_work():
    for state in (S.DRAINING, S.DYING, S.GONE):
        assert E.SENT not in WORKER_MOVES[state]


def test_the_first_service_time_is_believed_and_later_ones_are_smoothed():
    worker = Worker(1, 9000, None, 0.0)

    worker.note_service_time(0.8)
    assert worker.service_time_s == 0.8
    worker.note_service_time(0.0)

    assert worker.service_time_s == pytest.approx(0.7)


def test_the_way_to_an_idle_worker_does_not_make_its_handler_slow():
    """
    On a busy machine the way takes longer than a handler of microseconds.
    """
    worker = Worker(1, 9000, None, 0.0)
    worker.bound_service_time(0.004)
    assert worker.service_time_s == 0.004
    for _ in range(100):
        worker.note_service_time(0.00001)

    worker.bound_service_time(0.004)

    assert worker.service_time_s < 0.0001
