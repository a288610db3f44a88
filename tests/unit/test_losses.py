"""Workers that cannot load or that die: what is told, and who replaces them."""

from __future__ import annotations

from stoker.supervisor import actions as a
from stoker.supervisor.engine import SWEEP_S
from stoker.supervisor.versions import VersionState

# -- failing to load ---------------------------------------------------------


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


# -- dying -------------------------------------------------------------------


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


def test_a_worker_that_dies_while_it_drains_is_not_replaced(stage):
    key = stage.serve()
    (worker_id,) = stage.alive(key)
    in_hand, ahead = stage.submit(), stage.submit()

    stage.scale(key, 0)
    stage.exit(worker_id, "signal 11")
    stage.advance(10.0)

    assert stage.alive(key) == []
    assert stage.refused == {in_hand: "worker_died", ahead: "no_worker"}
