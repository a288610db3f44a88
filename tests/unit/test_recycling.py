"""Workers that are well and are replaced all the same, without losing anything."""

from __future__ import annotations

import pytest

from stoker.supervisor import actions as a
from stoker.supervisor.engine import SWEEP_S
from stoker.supervisor.recycling import AGAIN_S, Limits
from stoker.supervisor.versions import VersionState
from stoker.supervisor.workers import Worker, WorkerState

MIB = 1 << 20


@pytest.mark.parametrize(
    ("limits", "facts", "why"),
    [
        (Limits(), {"jobs_done": 10**9, "memory_bytes": 1 << 50}, None),
        (Limits(jobs=3), {"jobs_done": 2}, None),
        (Limits(jobs=3), {"jobs_done": 3}, "max_worker_jobs: 3 requests"),
        (Limits(memory_bytes=64 * MIB), {"memory_bytes": 64 * MIB - 1}, None),
        (
            Limits(memory_bytes=64 * MIB),
            {"memory_bytes": 65 * MIB},
            "max_worker_memory_mb: 65 MiB",
        ),
        (Limits(age_s=100.0), {}, "max_worker_age_s: 100 s"),
        (Limits(age_s=100.1), {}, None),
    ],
)
def test_each_limit_says_why(limits, facts, why):
    """
    The log tells an operator what to set differently.
    """
    worker = Worker(1, 9000, None, 0.0)
    worker.loaded_at = 1000.0
    for name, value in facts.items():
        setattr(worker, name, value)

    assert limits.passed_by(worker, 1100.0) == why


def test_a_successor_comes_before_the_old_worker_leaves(stage):
    """
    At no time is there one worker less.
    """
    key = stage.serve(limits=Limits(jobs=1))
    (old,) = stage.alive(key)
    stage.submit()
    stage.answer(old)
    stage.advance(SWEEP_S)
    (_, successor) = stage.alive(key)
    assert stage.took(a.SendLeave) == []
    meanwhile = stage.submit()
    assert stage.sent(old)[-1] == [meanwhile], "the old one serves until then"

    stage.load(successor)

    assert stage.took(a.SendLeave) == [(old,)]
    later = stage.submit()
    assert stage.sent(successor) == [[later]]
    assert stage.answer(old) == [meanwhile]
    stage.exit(old, "exit 0")
    assert stage.refused == {}
    assert stage.alive(key) == [successor]
    assert [note["why"] for note in stage.notes("worker recycles")] == [
        "max_worker_jobs: 1 requests"
    ]


def test_recycling_is_no_death_and_leaves_the_version_steady(stage):
    """
    Nobody is called at night for it.
    """
    key = stage.serve(limits=Limits(age_s=5.0))
    crew = stage.served(key).crew
    stage.advance(5.5)
    old, successor = stage.alive(key)
    assert stage.served(key).state is VersionState.STEADY

    stage.load(successor)
    assert stage.served(key).state is VersionState.STEADY
    stage.exit(old, "exit 0")

    assert (crew.losses.count, crew.succession.recycled_count) == (0, 1)
    assert stage.notes("worker lost") == []
    assert len(crew.slots) == 1


def test_one_worker_at_a_time(stage):
    """
    Three of the same age must not double the memory of the model at once.
    """
    key = stage.serve(workers=3, limits=Limits(age_s=5.0))
    seen = []

    stage.advance(5.5)
    for _ in range(3):
        extra = [x for x in stage.alive(key) if stage.worker(x).loaded_at is None]
        seen.append(len(extra))
        stage.load(extra[0])
        for worker_id in stage.alive(key):
            if stage.worker(worker_id).state is WorkerState.DRAINING:
                stage.exit(worker_id, "exit 0")
        stage.advance(2 * SWEEP_S)

    assert seen == [1, 1, 1]
    assert len(stage.alive(key)) == 3
    assert stage.served(key).crew.succession.recycled_count == 3


def test_every_worker_has_its_turn_however_soon_a_successor_is_due_again(stage):
    """
    Under load successors pass a limit between two looks; the others must not wait for ever.
    """
    key = stage.serve(workers=2, limits=Limits(jobs=1))
    first = stage.alive(key)
    for worker_id in first:
        stage.worker(worker_id).jobs_done = 1

    for _ in range(2):
        stage.advance(2 * SWEEP_S)
        (successor,) = [x for x in stage.alive(key) if stage.worker(x).loaded_at is None]
        stage.load(successor)
        stage.worker(successor).jobs_done = 1
        for worker_id in stage.alive(key):
            if stage.worker(worker_id).state is WorkerState.DRAINING:
                stage.exit(worker_id, "exit 0")

    assert set(first).isdisjoint(stage.alive(key))


def test_a_worker_too_large_is_replaced(stage):
    key = stage.serve(limits=Limits(memory_bytes=100 * MIB))
    (old,) = stage.alive(key)

    stage.measure(old, 99 * MIB)
    stage.advance(SWEEP_S)
    assert stage.alive(key) == [old]
    stage.measure(old, 100 * MIB)
    stage.advance(SWEEP_S)

    assert len(stage.alive(key)) == 2


def test_beyond_the_hard_limit_a_worker_is_killed_and_its_job_tried_again(stage):
    """
    Before it takes others down with it; and the log says why.
    """
    key = stage.serve(max_attempts=2, limits=Limits(kill_bytes=100 * MIB))
    (large,) = stage.alive(key)
    job_id = stage.submit()

    stage.measure(large, 200 * MIB)
    assert stage.signals(large) == ["Kill"]
    stage.measure(large, 201 * MIB)
    assert stage.signals(large) == ["Kill"], "once"
    stage.exit(large, "SIGKILL", is_oom=True)

    stage.load(stage.alive(key)[0])
    assert stage.sent()[-1] == [job_id]
    assert stage.notes("worker lost")[0]["likely"] == "its memory passed worker_memory_limit_mb"


def test_a_request_that_always_needs_too_much_is_told_so(stage):
    key = stage.serve(max_attempts=2, limits=Limits(kill_bytes=100 * MIB))
    job_id = stage.submit()
    for _ in range(2):
        (worker_id,) = stage.alive(key)
        if stage.worker(worker_id).loaded_at is None:
            stage.load(worker_id)
        stage.measure(worker_id, 200 * MIB)
        stage.exit(worker_id, "SIGKILL", is_oom=True)

    assert stage.refused == {job_id: "worker_died"}
    assert stage.refusal(job_id).details["likely"] == "its memory passed worker_memory_limit_mb"


# -- when it does not work out --------------------------------------------------------


def test_a_successor_that_cannot_load_leaves_the_old_worker_in_place(stage):
    """
    What works is not thrown away; it is tried again later, not at once.
    """
    key = stage.serve(limits=Limits(age_s=5.0))
    (old,) = stage.alive(key)
    stage.advance(5.5)

    stage.fail_load(stage.alive(key)[1], "OSError: the disk is gone")

    assert stage.alive(key) == [old]
    assert stage.served(key).state is VersionState.STEADY
    assert stage.served(key).crew.loads.failure is None
    assert stage.took(a.SendLeave) == []
    stage.advance(AGAIN_S - 1.0)
    assert stage.alive(key) == [old]
    stage.advance(2.0)
    assert len(stage.alive(key)) == 2


def test_where_two_do_not_fit_the_old_worker_leaves_first(stage):
    """
    A model that fills the device cannot have a second one beside it; its
    queue waits, nothing is lost.
    """
    key = stage.serve(limits=Limits(age_s=5.0))
    (old,) = stage.alive(key)
    in_hand = stage.submit()
    stage.advance(5.5)

    stage.fail_load(stage.alive(key)[1], "OutOfMemoryError: CUDA out of memory", is_oom=True)
    assert stage.took(a.SendLeave) == [(old,)]
    queued = stage.submit()
    assert stage.answer(old) == [in_hand]
    stage.exit(old, "exit 0")

    (new,) = stage.alive(key)
    stage.load(new)
    assert stage.sent(new) == [[queued]]
    assert stage.refused == {}
    crew = stage.served(key).crew
    assert (crew.losses.count, len(crew.slots)) == (0, 1)


def test_a_renewed_worker_that_does_not_leave_is_killed_and_renewed(stage):
    key = stage.serve(limits=Limits(age_s=5.0))
    (old,) = stage.alive(key)
    stage.advance(5.5)
    stage.fail_load(stage.alive(key)[1], "OutOfMemoryError", is_oom=True)

    stage.advance(20.0)
    assert "Kill" in stage.signals(old)
    stage.exit(old, "SIGKILL", is_oom=True)

    (new,) = stage.alive(key)
    assert new != old
    assert stage.served(key).crew.losses.count == 0


def test_an_old_worker_that_dies_is_succeeded_at_once(stage):
    """
    The successor is on its way already; no third one is started.
    """
    key = stage.serve(max_attempts=2, limits=Limits(age_s=5.0))
    (old,) = stage.alive(key)
    job_id = stage.submit()
    stage.advance(5.5)
    (_, successor) = stage.alive(key)

    stage.exit(old, "SIGSEGV")
    stage.advance(5.0)
    assert stage.alive(key) == [successor]
    stage.load(successor)

    assert stage.sent(successor) == [[job_id]]
    assert len(stage.served(key).crew.slots) == 1


def test_scaling_down_takes_a_successor_along(stage):
    """
    It was only there for the one that leaves.
    """
    key = stage.serve(workers=2, limits=Limits(age_s=5.0))
    first, second = stage.alive(key)
    stage.advance(5.5)
    (successor,) = [x for x in stage.alive(key) if x not in (first, second)]

    stage.scale(key, 0, call="down", wait_s=60.0)
    assert stage.signals(successor) == ["Kill"]
    for worker_id in (first, second, successor):
        stage.exit(worker_id, "exit 0")

    assert stage.resolved == {"down": {"outcome": "ready"}}
    assert stage.served(key).crew.slots == []


def test_scaling_down_while_a_worker_is_renewed_lets_it_finish(stage):
    key = stage.serve(limits=Limits(age_s=5.0))
    (old,) = stage.alive(key)
    in_hand = stage.submit()
    stage.advance(5.5)
    stage.fail_load(stage.alive(key)[1], "OutOfMemoryError", is_oom=True)

    stage.scale(key, 0)

    assert stage.signals(old) == []
    assert stage.answer(old) == [in_hand]
    stage.exit(old, "exit 0")
    assert stage.alive(key) == []
    assert stage.served(key).crew.slots == []
