"""Unregistering: what becomes of the jobs, the workers and the name."""

from __future__ import annotations

import pytest

from stoker.errors import DefaultVersionInUse
from stoker.supervisor import actions as a
from stoker.supervisor.engine import SWEEP_S


def test_jobs_given_back_to_a_version_that_leaves_are_answered(stage):
    """
    The queue was flushed when it was unregistered; nobody would look again.
    """
    key = stage.serve()
    (worker_id,) = stage.alive(key)
    in_hand, ahead = stage.submit(), stage.submit()
    assert [[in_hand], [ahead]] == stage.sent(worker_id)
    stage.unregister(key)

    stage.exit(worker_id, "signal 9")

    assert {in_hand: "worker_died", ahead: "unregistered"} == stage.refused
    assert stage.resolved == {"unregister": {}}
    assert stage.engine.job_count == 0


def test_unregister_answers_what_waits_and_lets_the_one_in_hand_finish(stage):
    """
    The peer drops the queue without a word.
    """
    key = stage.serve()
    (worker_id,) = stage.alive(key)
    in_hand, ahead, queued = stage.submit(), stage.submit(), stage.submit()

    stage.unregister(key)
    assert stage.refused == {queued: "unregistered", ahead: "unregistered"}
    assert stage.took(a.SendDrop) == [(worker_id, [ahead])]
    assert stage.resolved == {}
    assert stage.answer(worker_id)[0] == in_hand
    stage.answer(worker_id)
    stage.exit(worker_id, "exit 0")

    assert stage.resolved == {"unregister": {}}
    assert [release.spec.key for release in stage.took(a.Release)] == [key]


def test_a_version_with_a_successor_answers_its_queue_before_it_leaves(stage):
    """
    Whoever asked for the default version was accepted, and shall not hear of a swap.
    """
    old = stage.serve(version="1.0")
    new = stage.serve(version="2.0")
    (worker_id,) = stage.alive(old)
    asked = [stage.submit() for _ in range(4)]
    stage.engine.registry.set_default("echo", "2.0")

    stage.unregister(old)
    later = stage.submit()
    assert stage.took(a.SendLeave) == []
    answered = [job_id for _ in asked for job_id in stage.answer(worker_id)]
    assert stage.took(a.SendLeave) == [(worker_id,)]
    stage.exit(worker_id, "exit 0")

    assert answered == asked
    assert stage.answer(stage.alive(new)[0]) == [later]
    assert stage.refused == {}
    assert stage.resolved == {"unregister": {}}


def test_a_queue_is_finished_within_the_limit_of_unregistering(stage):
    """
    Then its workers are killed, not replaced, and what is left is answered.
    """
    old = stage.serve(version="1.0")
    stage.serve(version="2.0")
    (worker_id,) = stage.alive(old)
    in_hand, ahead, queued = (stage.submit() for _ in range(3))
    stage.engine.registry.set_default("echo", "2.0")

    stage.unregister(old, wait_s=5.0)
    stage.advance(6.0)
    assert stage.signals(worker_id) == ["Kill"]
    stage.exit(worker_id, "signal 9")

    assert stage.refused == {in_hand: "no_worker", ahead: "unregistered", queued: "unregistered"}
    assert stage.resolved["unregister"] == "unregister_timeout"
    assert stage.took(a.Release) != []


def test_an_unregistered_version_is_gone_for_new_requests_at_once(stage):
    key = stage.serve()
    stage.submit()
    stage.unregister(key)

    job_id = stage.submit()

    assert stage.refused == {job_id: "model_not_found"}


def test_a_name_can_be_registered_again_while_the_old_one_drains(stage):
    key = stage.serve()
    (old,) = stage.alive(key)
    in_hand = stage.submit()
    stage.unregister(key)

    stage.serve()

    new = next(worker_id for worker_id in stage.alive(key) if worker_id != old)
    job_id = stage.submit()
    assert stage.sent(new) == [[job_id]]
    assert stage.answer(old) == [in_hand]


def test_unregister_that_takes_too_long_kills_and_says_so(stage):
    """
    408 in the peer's terms; the worker goes all the same.
    """
    key = stage.serve()
    (worker_id,) = stage.alive(key)
    job_id = stage.submit()
    stage.unregister(key, wait_s=3.0)

    stage.advance(3.0 + SWEEP_S)
    assert stage.resolved == {"unregister": "unregister_timeout"}
    assert stage.signals(worker_id) == ["Kill"]
    stage.exit(worker_id, "signal 9")

    assert stage.refused == {job_id: "no_worker"}
    assert stage.took(a.Release) != []


def test_unregister_ends_a_sync_scale_that_waits(stage):
    key = stage.register()
    stage.scale(key, 1, call="scale", wait_s=60.0)

    stage.unregister(key)
    stage.exit(stage.alive(key)[0], "signal 9")

    assert stage.resolved == {"scale": "unregistered", "unregister": {}}


def test_unregister_of_a_version_without_workers_is_answered_at_once(stage):
    key = stage.register()

    stage.unregister(key)

    assert stage.resolved == {"unregister": {}}


def test_the_default_version_cannot_be_unregistered_while_others_exist(stage):
    key = stage.serve(version="1.0")
    stage.serve(version="2.0")

    with pytest.raises(DefaultVersionInUse):
        stage.unregister(key)

    assert len(stage.alive(key)) == 1


def test_nothing_is_kept_of_what_was_unregistered(stage):
    """
    A server that registers and unregisters all day must not grow.
    """
    for _ in range(3):
        key = stage.serve(batch_size=4, delay_s=1.0, workers=2)
        for _ in range(3):
            stage.submit()
        stage.unregister(key)
        for worker_id in stage.alive(key):
            stage.exit(worker_id, "exit 0")
    stage.advance(1.0)

    engine = stage.engine
    kept = (engine._jobs, engine._workers, engine.versions.leaving, engine._due, engine._touched)
    assert [x for x in kept if x] == []
    assert stage.places.placed == {}
