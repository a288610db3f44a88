"""The engine's stop: what was accepted is answered, and every worker leaves."""

from __future__ import annotations

import pytest

from stoker.errors import ShuttingDown
from stoker.supervisor import actions as a
from stoker.supervisor.engine import SWEEP_S


def test_jobs_that_a_stop_cuts_off_are_told_so(stage):
    """
    Nobody unregistered anything: the client should try another server.
    """
    key = stage.register()
    stage.scale(key, 1, call="scale", wait_s=60.0)
    job_id = stage.submit()

    stage.stop(drain_s=1.0)
    stage.advance(2.0)

    assert {job_id: "shutting_down"} == stage.refused
    assert stage.resolved == {"scale": "shutting_down"}


def test_stop_finishes_what_is_queued(stage):
    """
    A restart of the server costs nobody an answer.
    """
    key = stage.serve()
    (worker_id,) = stage.alive(key)
    job_ids = [stage.submit() for _ in range(5)]

    stage.stop(drain_s=30.0)
    done = []
    while stage.worker(worker_id).in_hand:
        done += stage.answer(worker_id)
        stage.advance(SWEEP_S)
    assert done == job_ids
    assert stage.took(a.SendLeave) == [(worker_id,)]
    assert not stage.engine.is_finished
    stage.exit(worker_id, "exit 0")

    assert stage.engine.is_finished
    assert stage.refused == {}


def test_stop_of_an_idle_server_lets_every_worker_leave_at_once(stage):
    key = stage.serve(workers=2)

    stage.stop()
    assert len(stage.took(a.SendLeave)) == 2
    for worker_id in stage.alive(key):
        stage.exit(worker_id, "exit 0")

    assert stage.engine.is_finished


def test_a_stopping_server_accepts_nothing_new(stage):
    key = stage.serve()
    stage.submit()
    stage.stop()

    job_id = stage.submit()

    assert stage.refused == {job_id: "shutting_down"}
    with pytest.raises(ShuttingDown):
        stage.register("another")
    with pytest.raises(ShuttingDown):
        stage.scale(key, 2)


def test_stop_kills_what_is_late(stage):
    key = stage.serve()
    (worker_id,) = stage.alive(key)
    stage.submit()

    stage.stop(drain_s=2.0)
    stage.advance(1.9)
    assert stage.signals(worker_id) == []
    stage.advance(0.1 + 2 * SWEEP_S)

    assert stage.signals(worker_id) == ["Kill"]
    stage.exit(worker_id, "signal 9")
    assert stage.engine.is_finished


def test_a_worker_that_crashes_during_a_stop_is_replaced_while_jobs_wait(stage):
    """
    The queue was promised to be finished.
    """
    key = stage.serve()
    (worker_id,) = stage.alive(key)
    in_hand, *waiting = (stage.submit() for _ in range(4))
    stage.stop(drain_s=30.0)

    stage.exit(worker_id, "signal 11")
    (new,) = stage.alive(key)
    stage.load(new)
    done = []
    while stage.worker(new).in_hand:
        done += stage.answer(new)

    assert stage.refused == {in_hand: "worker_died"}
    assert done == waiting


def test_an_unregister_that_waits_is_answered_by_a_stop(stage):
    key = stage.serve()
    (worker_id,) = stage.alive(key)
    stage.submit()
    stage.unregister(key)

    stage.stop()
    stage.answer(worker_id)
    stage.exit(worker_id, "exit 0")

    assert stage.resolved == {"unregister": {}}
    assert stage.engine.is_finished
