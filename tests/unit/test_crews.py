"""Workers: started, watched, replaced, retired."""

from __future__ import annotations

import pytest

from stoker.supervisor import actions as a
from stoker.supervisor.engine import SWEEP_S
from stoker.supervisor.jobs import ImpossibleMove
from stoker.supervisor.ladder import ABORT_GRACE_S, CANCEL_GRACE_S, KILL_AGAIN_S, LEAVE_GRACE_S
from stoker.supervisor.versions import Failure, VersionState
from stoker.supervisor.workers import WorkerState
from stoker.wire.frames import Group, Reply

# -- starting -------------------------------------------------------------------


def test_a_worker_that_says_hello_is_told_what_to_load(stage):
    key = stage.register()
    stage.scale(key, 1)
    (worker_id,) = stage.alive(key)
    assert stage.took(a.SendLoad) == []

    stage.hello(worker_id)

    (load,) = stage.took(a.SendLoad)
    assert (load.worker_id, load.spec) == (worker_id, stage.served(key).spec)


def test_jobs_wait_for_the_first_worker_to_load(stage):
    """
    Scripts that register and predict at once must work.
    """
    key = stage.register()
    stage.scale(key, 1)
    job_id = stage.submit()

    stage.load(stage.alive(key)[0])

    assert stage.sent() == [[job_id]]


def test_slots_are_numbered_over_the_whole_server_and_never_reused(stage):
    """
    Clients see the number as the worker's id.
    """
    one, two = stage.serve("one", workers=2), stage.serve("two")
    stage.scale(one, 1)
    stage.exit(stage.alive(one)[-1])
    stage.scale(one, 2)

    assert [spawn.slot for spawn in stage.took(a.Spawn)] == [9000, 9001, 9002, 9003]
    assert len({spawn.worker_id for spawn in stage.took(a.Spawn)}) == 4
    assert stage.served(two).crew.slots.ready_count == 1


def test_a_replacement_keeps_the_slot_and_changes_the_worker(stage):
    key = stage.serve()
    (old,) = stage.alive(key)

    stage.exit(old)

    (new,) = stage.alive(key)
    assert new != old
    assert [spawn.slot for spawn in stage.took(a.Spawn)] == [9000, 9000]


def test_a_worker_that_is_slow_to_load_is_aborted(stage):
    key = stage.register(startup_timeout_s=5.0)
    stage.scale(key, 1)
    (worker_id,) = stage.alive(key)
    stage.hello(worker_id)

    stage.advance(5.0)
    assert stage.signals(worker_id) == []
    stage.advance(2 * SWEEP_S)

    assert stage.signals(worker_id) == ["Abort"]


def test_a_process_that_could_not_be_started_is_a_failed_load(stage):
    """
    The loop reports it as an exit without a life.
    """
    key = stage.register()
    stage.scale(key, 1, call="sync", wait_s=60.0)

    stage.exit(stage.alive(key)[0], "could not be started: too many processes")

    assert stage.resolved == {"sync": "load_failed"}


# -- failing to load -------------------------------------------------------------


def test_boot_failure_is_reported_once_and_not_retried(stage):
    """
    Four workers with the same ImportError are one problem, and trying again solves nothing.
    """
    key = stage.register()
    stage.scale(key, 4)
    for worker_id in stage.alive(key):
        stage.fail_load(worker_id, "ImportError: no module named onnx")

    stage.advance(60.0)

    assert stage.alive(key) == []
    assert len(stage.took(a.Spawn)) == 4
    assert len(stage.notes("load failed")) == 1
    served = stage.served(key)
    assert served.state is VersionState.FAILED
    assert served.crew.loads.failure.last_line == "ImportError: no module named onnx"


def test_waiting_jobs_are_refused_when_no_worker_will_come(stage):
    key = stage.register()
    stage.scale(key, 2)
    job_id = stage.submit()
    first, second = stage.alive(key)

    stage.fail_load(first)
    assert stage.refused == {}, "the other one may still load"
    stage.fail_load(second)
    later = stage.submit()

    assert stage.refused == {job_id: "no_worker", later: "no_worker"}


def test_a_load_failure_of_a_version_that_has_loaded_before_is_tried_again(stage):
    """
    The dead one's GPU memory may not be free yet.
    """
    key = stage.serve()
    stage.exit(stage.alive(key)[0], "signal 9")

    stage.fail_load(stage.alive(key)[0], "OutOfMemoryError: CUDA")
    stage.advance(2.5)

    (worker_id,) = stage.alive(key)
    stage.load(worker_id)
    assert stage.served(key).crew.loads.failure is None


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


def test_given_up_slots_revive_on_scale(stage):
    """
    The operator has changed something; that is what scaling again says.
    """
    key = stage.register()
    stage.scale(key, 2)
    for worker_id in stage.alive(key):
        stage.fail_load(worker_id)

    stage.scale(key, 2)

    alive = stage.alive(key)
    assert len(alive) == 2
    for worker_id in alive:
        stage.load(worker_id)
    assert stage.served(key).state is VersionState.STEADY
    assert [spawn.slot for spawn in stage.took(a.Spawn)] == [9000, 9001, 9000, 9001]


# -- dying ------------------------------------------------------------------------


def test_a_crashed_worker_is_replaced_at_once_and_then_with_back_off(stage):
    key = stage.serve()
    waits = []
    for _ in range(6):
        stage.exit(stage.alive(key)[0], "signal 11")
        died_at = stage.now
        while not stage.alive(key):
            stage.advance(SWEEP_S)
        waits.append(round(stage.now - died_at))
        stage.load(stage.alive(key)[0])

    assert waits == [0, 1, 1, 2, 3, 5]


def test_a_crash_fails_only_what_was_in_hand(stage):
    key = stage.serve(workers=2)
    first, second = stage.alive(key)
    stage.submit()
    stage.submit()
    waiting = stage.submit()
    (in_hand,) = stage.sent(first)

    stage.exit(first, "signal 11")

    assert stage.refused == dict.fromkeys(in_hand, "worker_died")
    stage.answer(second)
    assert stage.sent(second)[1:] == [[waiting]]


def test_a_kill_out_of_nowhere_smells_of_memory(stage):
    """
    Nobody here sent that SIGKILL.
    """
    key = stage.serve()
    job_id = stage.submit()

    stage.exit(stage.alive(key)[0], "signal 9", is_oom=True)

    assert stage.refused == {job_id: "worker_out_of_memory"}


def test_our_own_kill_is_not_blamed_on_memory(stage):
    key = stage.serve()
    job_id = stage.submit()
    (worker_id,) = stage.alive(key)
    stage.scale(key, 0, drain_s=0.0)

    stage.exit(worker_id, "signal 9", is_oom=True)

    assert stage.refused == {job_id: "no_worker"}


def test_after_the_recovery_window_a_slot_is_given_up(stage):
    """
    maxRetryTimeoutInSec; then the queue is answered and ping says so.
    """
    key = stage.serve(max_retry_s=5.0)
    job_id = None
    while stage.alive(key):
        stage.exit(stage.alive(key)[0], "signal 11")
        job_id = stage.submit()
        stage.advance(10.0)

    assert stage.refused[job_id] == "no_worker"
    assert len(stage.notes("worker given up")) == 1
    assert not stage.served(key).crew.is_healthy(stage.now)


def test_a_version_whose_workers_keep_dying_has_failed_and_says_why(stage):
    """
    It loads and dies, again and again: its queue is answered, and describe tells the cause.
    """
    key = stage.serve(max_retry_s=5.0)
    while stage.alive(key):
        worker_id = stage.alive(key)[0]
        if stage.worker(worker_id).loaded_at is None:
            stage.load(worker_id)
        stage.exit(worker_id, "SIGSEGV")
        stage.advance(2.0)

    served = stage.served(key)
    assert served.state is VersionState.FAILED
    assert "SIGSEGV" in served.crew.loads.failure.message
    assert served.crew.losses.count == len(stage.notes("worker lost")) > 2
    assert served.crew.losses.latest.exit == "SIGSEGV"
    refused = stage.submit()
    assert stage.refused[refused] == "no_worker"
    assert len(stage.notes("model cannot run")) == 1


def test_others_do_not_notice_a_version_that_keeps_dying(stage):
    well, ill = stage.serve("well"), stage.serve("ill", max_retry_s=5.0)
    (worker_id,) = stage.alive(well)

    while stage.alive(ill):
        stage.exit(stage.alive(ill)[0], "SIGSEGV")
        job_id = stage.submit("well")
        assert stage.answer(worker_id) == [job_id]
        stage.advance(3.0)

    assert stage.alive(well) == [worker_id]
    assert stage.served(well).state is VersionState.STEADY


def test_a_version_that_lost_a_worker_is_not_steady_until_it_is_back(stage):
    key = stage.serve(workers=2)
    assert stage.served(key).state is VersionState.STEADY

    stage.exit(stage.alive(key)[0], "SIGSEGV")
    assert stage.served(key).state is VersionState.SCALING
    stage.load(stage.alive(key)[-1])

    assert stage.served(key).state is VersionState.STEADY


def test_a_failed_version_scaled_to_nothing_has_failed_no_more(stage):
    """
    Nobody asks anything of it, so it does all that is asked.
    """
    key = stage.register()
    stage.scale(key, 1)
    stage.fail_load(stage.alive(key)[0])
    assert stage.served(key).state is VersionState.FAILED

    stage.scale(key, 0)

    assert stage.served(key).state is VersionState.STEADY
    assert stage.served(key).crew.loads.failure is None
    assert stage.served(key).crew.is_healthy(stage.now)


def test_a_recovering_worker_counts_as_healthy_within_its_window(stage):
    key = stage.serve(max_retry_s=300.0)
    crew = stage.served(key).crew

    stage.exit(stage.alive(key)[0], "signal 11")

    assert crew.is_healthy(stage.now)
    assert not crew.is_healthy(stage.now + 301.0)


def test_devices_are_placed_and_released_with_every_process(stage):
    key = stage.serve(workers=3)
    stage.exit(stage.alive(key)[1])
    assert len(stage.places.placed) == 3

    stage.scale(key, 0)
    for worker_id in stage.alive(key):
        stage.exit(worker_id)

    assert stage.places.placed == {}


# -- silence ------------------------------------------------------------------------


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


# -- leaving ------------------------------------------------------------------------


def test_scale_down_waits_for_the_job_in_hand(stage):
    """
    The peer kills at once (pytorch/serve#1101).
    """
    key = stage.serve(workers=2)
    first, second = stage.alive(key)
    stage.submit()
    stage.submit()

    stage.scale(key, 1, call="sync", wait_s=60.0)
    assert stage.took(a.SendLeave) == [(second,)]
    stage.advance(30.0)
    assert stage.signals(second) == []
    assert stage.resolved == {}
    stage.answer(second)
    stage.exit(second, "exit 0")

    assert stage.refused == {}
    assert stage.resolved == {"sync": {"outcome": "ready"}}
    assert stage.alive(key) == [first]


def test_a_leaving_worker_gets_no_more_jobs(stage):
    key = stage.serve(workers=2)
    first, second = stage.alive(key)
    stage.scale(key, 1)
    stage.forget()

    for _ in range(2):
        stage.submit()

    assert stage.sent(second) == []
    assert len(stage.sent(first)) == 1


def test_scale_timeout_zero_kills_at_once(stage):
    key = stage.serve()
    (worker_id,) = stage.alive(key)
    in_hand = stage.submit()

    stage.scale(key, 0, drain_s=0.0)
    assert stage.signals(worker_id) == ["Kill"]
    stage.exit(worker_id, "signal 9")

    assert stage.refused == {in_hand: "no_worker"}


def test_scale_timeout_lets_drain_that_long_and_no_longer(stage):
    key = stage.serve()
    (worker_id,) = stage.alive(key)
    stage.submit()

    stage.scale(key, 0, drain_s=5.0)
    stage.advance(4.9)
    assert stage.signals(worker_id) == []
    stage.advance(0.1 + 2 * SWEEP_S)

    assert stage.signals(worker_id) == ["Kill"]


def test_without_scale_timeout_a_drain_has_only_the_response_timeout(stage):
    """
    "-1: wait infinitely" is for a worker that works, not for one that hangs.
    """
    key = stage.serve(response_timeout_s=120.0)
    (worker_id,) = stage.alive(key)
    stage.submit()

    stage.scale(key, 0, drain_s=None)
    stage.advance(119.0)
    assert stage.worker(worker_id).stalled_at is None
    stage.advance(2.0 + CANCEL_GRACE_S)

    assert stage.signals(worker_id) == ["Abort"]


def test_an_idle_worker_that_does_not_leave_is_killed(stage):
    key = stage.serve()
    (worker_id,) = stage.alive(key)

    stage.scale(key, 0)
    stage.advance(LEAVE_GRACE_S)
    assert stage.signals(worker_id) == []
    stage.advance(2 * SWEEP_S)

    assert stage.signals(worker_id) == ["Kill"]


def test_a_worker_that_has_not_loaded_is_simply_killed(stage):
    """
    Nothing is lost with it.
    """
    key = stage.register()
    stage.scale(key, 1)
    (worker_id,) = stage.alive(key)

    stage.scale(key, 0)
    assert stage.signals(worker_id) == ["Kill"]
    stage.hello(worker_id)
    assert stage.took(a.SendLoad) == [], "what it says now does not matter"
    stage.exit(worker_id, "signal 9")

    assert stage.alive(key) == []


def test_a_slot_in_back_off_is_retired_without_a_process(stage):
    key = stage.register()
    stage.scale(key, 1)
    stage.exit(stage.alive(key)[0], "signal 11")

    stage.scale(key, 0, call="sync", wait_s=60.0)
    stage.advance(10.0)

    assert stage.resolved == {"sync": {"outcome": "ready"}}
    assert stage.alive(key) == []


def test_surplus_is_retired_from_the_end_of_the_list(stage):
    """
    contracts/torchserve.md 3.5.
    """
    key = stage.serve(workers=4)

    stage.scale(key, 1, 2)

    assert [leave.worker_id for leave in stage.took(a.SendLeave)] == stage.alive(key)[3:1:-1]


def test_a_worker_that_dies_while_it_drains_is_not_replaced(stage):
    key = stage.serve()
    (worker_id,) = stage.alive(key)
    in_hand, ahead = stage.submit(), stage.submit()

    stage.scale(key, 0)
    stage.exit(worker_id, "signal 11")
    stage.advance(10.0)

    assert stage.alive(key) == []
    assert stage.refused == {in_hand: "worker_died", ahead: "no_worker"}


def test_a_worker_that_lies_is_killed_and_replaced(stage):
    key = stage.serve()
    (worker_id,) = stage.alive(key)

    stage.engine.worker_lied(worker_id, stage.now, "rubbish on the wire")
    stage.end_turn()
    stage.exit(worker_id, "signal 9")

    assert len(stage.notes("worker broke the protocol")) == 1
    assert len(stage.alive(key)) == 1


def test_words_out_of_turn_are_impossible_moves(stage):
    """
    The loop takes them for lies.
    """
    key = stage.register()
    stage.scale(key, 1)
    (worker_id,) = stage.alive(key)

    with pytest.raises(ImpossibleMove):
        stage.engine.worker_loaded(worker_id, stage.now)
    stage.hello(worker_id)
    with pytest.raises(ImpossibleMove):
        stage.engine.worker_said_hello(worker_id, stage.now)


def test_a_later_scale_hurries_a_worker_that_drains_already(stage):
    """
    An operator who has waited long enough says timeout=0, and means it.
    """
    key = stage.serve()
    (worker_id,) = stage.alive(key)
    stage.submit()
    stage.scale(key, 0, drain_s=None)

    stage.scale(key, 0, drain_s=5.0)
    stage.advance(5.0 + 2 * SWEEP_S)

    assert stage.signals(worker_id) == ["Kill"]


def test_a_scale_does_not_wait_out_a_back_off(stage):
    """
    Back-off is for nobody looking; whoever scales is looking.
    """
    key = stage.serve()
    for _ in range(2):
        (worker_id,) = stage.alive(key)
        stage.exit(worker_id)
    assert stage.alive(key) == []

    stage.scale(key, 1)

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
