"""Workers that should end: asked first, then made to."""

from __future__ import annotations

from stoker.supervisor import actions as a
from stoker.supervisor.engine import SWEEP_S
from stoker.supervisor.ladder import ABORT_GRACE_S, CANCEL_GRACE_S, KILL_AGAIN_S, LEAVE_GRACE_S
from stoker.supervisor.versions import Failure
from stoker.supervisor.workers import WorkerState
from stoker.wire.frames import Group, Reply

# -- silence -----------------------------------------------------------------


def test_a_silent_worker_is_aborted_then_killed_then_replaced(stage):
    """
    Its client is told at once.  The handler may see that it is not wanted any
    more, then SIGABRT has the log show the Python stack, then SIGKILL.
    """
    key = stage.serve(response_timeout_s=2.0)
    (worker_id,) = stage.alive(key)
    job_id = stage.submit()

    stage.advance(2.0)
    assert stage.took(a.SendDrop) == []
    stage.advance(2 * SWEEP_S)
    assert stage.took(a.SendDrop) == [(worker_id, [job_id])]
    assert stage.refused == {job_id: "worker_died"}
    assert stage.refusal(job_id).details["reason"] == "timeout"
    assert stage.signals(worker_id) == []
    stage.advance(CANCEL_GRACE_S + SWEEP_S)
    assert stage.signals(worker_id) == ["Abort"]
    stage.advance(ABORT_GRACE_S + SWEEP_S)
    assert stage.signals(worker_id) == ["Abort", "Kill"]
    stage.exit(worker_id, "signal 9", is_oom=True)

    (new,) = stage.alive(key)
    stage.load(new)
    later = stage.submit()
    assert stage.sent(new) == [[later]]


def test_a_worker_that_survives_a_kill_is_killed_again(stage):
    """
    A process in a driver call dies only when the call returns.
    """
    key = stage.serve(response_timeout_s=1.0)
    (worker_id,) = stage.alive(key)
    stage.submit()

    stage.advance(1.5 + CANCEL_GRACE_S + ABORT_GRACE_S + 2 * KILL_AGAIN_S + 3 * SWEEP_S)

    assert stage.signals(worker_id) == ["Abort", "Kill", "Kill", "Kill"]


def test_an_aborted_worker_gets_nothing_more(stage):
    key = stage.serve(response_timeout_s=1.0)
    stage.submit()
    stage.advance(1.5 + CANCEL_GRACE_S)

    stage.submit()

    assert len(stage.sent()) == 1
    assert stage.worker(stage.alive(key)[0]).state is WorkerState.DYING


def test_a_handler_that_stops_when_told_keeps_its_worker(stage):
    """
    A cancelled handler that returns spares the model its next load.
    """
    key = stage.serve(response_timeout_s=1.0)
    (worker_id,) = stage.alive(key)
    late = stage.submit()
    stage.advance(1.5)
    assert stage.worker(worker_id).state is WorkerState.STALLED
    queued = stage.submit()
    assert stage.sent() == [[late]], "a stalled worker gets nothing"

    stage.answer(worker_id)

    assert stage.sent() == [[late], [queued]]
    assert stage.took(a.Forward) == [], "nobody knows whether a cancelled answer is whole"
    assert stage.answer(worker_id) == [queued]
    stage.advance(CANCEL_GRACE_S + ABORT_GRACE_S)
    assert stage.signals(worker_id) == []
    assert stage.refused == {late: "worker_died"}


def test_a_stalled_worker_with_work_ahead_goes_on_with_it(stage):
    key = stage.serve(response_timeout_s=1.0)
    (worker_id,) = stage.alive(key)
    late, ahead = stage.submit(), stage.submit()
    stage.advance(1.5)

    stage.answer(worker_id)

    assert stage.worker(worker_id).state is WorkerState.BUSY
    assert stage.answer(worker_id) == [ahead]
    assert stage.refused == {late: "worker_died"}


def test_a_stalled_worker_that_drains_leaves_when_it_comes_back(stage):
    key = stage.serve(response_timeout_s=1.0)
    (worker_id,) = stage.alive(key)
    stage.submit()
    stage.advance(1.5)
    stage.scale(key, 0)

    stage.answer(worker_id)

    assert stage.worker(worker_id).state is WorkerState.DRAINING
    stage.advance(CANCEL_GRACE_S + ABORT_GRACE_S)
    assert stage.signals(worker_id) == []


def test_every_piece_of_a_stream_is_a_sign_of_life(stage):
    """
    response_timeout is time without any message from the worker.
    """
    key = stage.serve(response_timeout_s=1.0)
    (worker_id,) = stage.alive(key)
    stage.submit()
    batch_id = stage.worker(worker_id).in_hand[0].batch_id

    for _ in range(5):
        stage.advance(0.9)
        stage.reply(worker_id, Reply(batch_id, False, [], [Group(b"frontend", b"piece")]))
    assert stage.worker(worker_id).stalled_at is None
    stage.advance(1.5 + CANCEL_GRACE_S)

    assert stage.signals(worker_id) == ["Abort"]


def test_a_batch_sent_ahead_has_its_own_time(stage):
    """
    Its clock starts when the worker takes it up.
    """
    key = stage.serve(response_timeout_s=1.0)
    (worker_id,) = stage.alive(key)
    stage.submit()
    stage.submit()
    stage.advance(0.9)
    stage.answer(worker_id)

    stage.advance(0.9)
    assert stage.worker(worker_id).stalled_at is None
    stage.advance(0.6)

    assert stage.worker(worker_id).stalled_at is not None


def test_an_idle_worker_may_be_silent_for_ever(stage):
    key = stage.serve(response_timeout_s=1.0)

    stage.advance(100.0)

    assert stage.signals(stage.alive(key)[0]) == []


# -- ends that do not come ---------------------------------------------------


def test_a_worker_that_is_slow_to_load_is_aborted(stage):
    key = stage.register(startup_timeout_s=5.0)
    stage.scale(key, 1)
    (worker_id,) = stage.alive(key)
    stage.hello(worker_id)

    stage.advance(5.0)
    assert stage.signals(worker_id) == []
    stage.advance(2 * SWEEP_S)

    assert stage.signals(worker_id) == ["Abort"]


def test_a_worker_that_failed_to_load_and_lingers_is_killed(stage):
    key = stage.register()
    stage.scale(key, 1)
    (worker_id,) = stage.alive(key)
    stage.hello(worker_id)
    failure = Failure("It cannot load.", "ValueError: no")
    stage.engine.worker_load_failed(worker_id, failure, stage.now)
    stage.end_turn()

    stage.advance(KILL_AGAIN_S + 2 * SWEEP_S)

    assert stage.signals(worker_id) == ["Kill"]


def test_an_idle_worker_that_does_not_leave_is_killed(stage):
    key = stage.serve()
    (worker_id,) = stage.alive(key)

    stage.scale(key, 0)
    stage.advance(LEAVE_GRACE_S)
    assert stage.signals(worker_id) == []
    stage.advance(2 * SWEEP_S)

    assert stage.signals(worker_id) == ["Kill"]


def test_a_worker_that_lies_is_killed_and_replaced(stage):
    key = stage.serve()
    (worker_id,) = stage.alive(key)

    stage.engine.worker_lied(worker_id, stage.now, "rubbish on the wire")
    stage.end_turn()
    stage.exit(worker_id, "signal 9")

    assert len(stage.notes("worker broke the protocol")) == 1
    assert len(stage.alive(key)) == 1


def test_a_worker_out_of_reach_is_not_accused_and_its_jobs_are_kept(stage):
    """
    The message met a dead worker before its exit was noticed; that is no lie of its.
    """
    key = stage.serve(max_attempts=2)
    job_id = stage.submit()
    (worker_id,) = stage.alive(key)

    stage.engine.worker_out_of_reach(worker_id, stage.now)
    stage.end_turn()
    stage.exit(worker_id, "SIGKILL", is_oom=True)
    (successor,) = stage.alive(key)
    stage.load(successor)

    assert stage.notes("worker broke the protocol") == []
    assert [note["likely"] for note in stage.notes("worker lost")] == ["out of memory"]
    assert stage.sent(successor) == [[job_id]]


def test_a_worker_out_of_reach_that_lives_on_is_killed(stage):
    """
    It would hold its jobs for ever.
    """
    key = stage.serve()
    (worker_id,) = stage.alive(key)

    stage.engine.worker_out_of_reach(worker_id, stage.now)
    stage.advance(2.0 + 2 * SWEEP_S)

    assert stage.signals(worker_id) == ["Kill"]


def test_a_worker_that_hangs_up_because_it_leaves_has_its_grace(stage):
    """
    Between its last word and its end lies whatever its handler does on exit.
    """
    key = stage.serve()
    (worker_id,) = stage.alive(key)
    stage.scale(key, 0)

    stage.engine.worker_out_of_reach(worker_id, stage.now)
    stage.advance(LEAVE_GRACE_S - 2 * SWEEP_S)
    signals_meanwhile = stage.signals(worker_id)
    stage.advance(4 * SWEEP_S)

    assert signals_meanwhile == []
    assert stage.signals(worker_id) == ["Kill"]
