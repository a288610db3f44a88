"""Calls that register or scale, and how those that wait are answered."""

from __future__ import annotations

import pytest

from stoker.errors import ModelNotFound, VersionExists
from stoker.supervisor import actions as a
from stoker.supervisor.engine import SWEEP_S
from stoker.supervisor.versions import VersionState


def test_there_are_never_more_workers_than_devices_for_them(stage):
    """
    Each takes several of its own (3.5); asking for more gets as many as fit.
    """
    key = stage.register(parallel_type="tp", parallel_level=2, most_workers=2)

    stage.scale(key, 3)

    assert len(stage.alive(key)) == 2
    assert stage.engine.registry.find(*key).crew.min_workers == 2


def test_the_same_version_twice_is_refused(stage):
    stage.serve()

    with pytest.raises(VersionExists):
        stage.register()


def test_sync_scale_is_answered_when_the_last_worker_is_ready(stage):
    key = stage.register()
    stage.scale(key, 2, call="sync", wait_s=60.0)
    first, second = stage.alive(key)

    stage.load(first)
    assert stage.resolved == {}
    stage.load(second)

    assert stage.resolved == {"sync": {"outcome": "ready"}}
    assert stage.served(key).state is VersionState.STEADY


def test_sync_scale_to_what_is_there_is_answered_at_once(stage):
    key = stage.serve(workers=2)

    stage.scale(key, 1, 3, call="sync", wait_s=60.0)

    assert stage.resolved == {"sync": {"outcome": "ready"}}


def test_sync_scale_that_takes_too_long_is_partial(stage):
    key = stage.register()
    stage.scale(key, 2, call="sync", wait_s=5.0)
    stage.load(stage.alive(key)[0])

    stage.advance(4.9)
    assert stage.resolved == {}
    stage.advance(0.1 + 2 * SWEEP_S)

    assert stage.resolved == {"sync": {"outcome": "partial"}}


def test_sync_registration_that_fails_takes_the_version_away(stage):
    """
    All or nothing: the name is free for the next try.
    """
    key = stage.register()
    stage.scale(key, 2, call="sync", wait_s=60.0, is_registration=True)
    first, second = stage.alive(key)
    waiting = stage.submit()

    stage.fail_load(first, "ImportError: x")

    (resolve,) = stage.took(a.Resolve)
    assert resolve.outcome.code == "load_failed"
    assert resolve.outcome.details["last_line"] == "ImportError: x"
    assert stage.refused == {waiting: "unregistered"}
    with pytest.raises(ModelNotFound):
        stage.served(key)
    assert stage.signals(second) == ["Kill"]
    stage.exit(second, "signal 9")
    assert stage.took(a.Release) != []
    assert stage.register() == key


def test_an_async_registration_that_fails_stays_to_be_looked_at(stage):
    key = stage.register()
    stage.scale(key, 1, is_registration=True)

    stage.fail_load(stage.alive(key)[0], "MemoryError", is_oom=True)

    served = stage.served(key)
    assert served.state is VersionState.FAILED
    assert served.crew.loads.failure.is_out_of_memory


def test_a_load_that_ran_out_of_memory_says_so(stage):
    key = stage.register()
    stage.scale(key, 1, call="sync", wait_s=60.0)

    stage.fail_load(stage.alive(key)[0], "MemoryError", is_oom=True)

    assert stage.resolved == {"sync": "load_out_of_memory"}


def test_a_crash_after_a_failed_load_and_a_new_try_is_reported_as_such(stage):
    """
    What an earlier try said must not decide about a later one.
    """
    key = stage.register()
    stage.scale(key, 1)
    stage.fail_load(stage.alive(key)[0])
    stage.scale(key, 1, call="again", wait_s=10.0)

    stage.exit(stage.alive(key)[0], "signal 11")

    assert stage.resolved == {"again": "load_failed"}
    stage.advance(2.0)
    assert len(stage.alive(key)) == 1, "a crash is tried again"


def test_a_worker_that_never_says_hello_fails_the_load_by_name_of_the_timeout(stage):
    """
    "signal 6" would send the operator looking for a crash.
    """
    key = stage.register(startup_timeout_s=3.0)
    stage.scale(key, 1, call="scale", wait_s=60.0)
    (worker_id,) = stage.alive(key)

    stage.advance(3.0 + 2 * SWEEP_S)
    stage.exit(worker_id, "signal 6")

    assert stage.signals(worker_id) == ["Abort"]
    (resolve,) = stage.took(a.Resolve)
    assert "startup_timeout" in resolve.outcome.details["last_line"]


def test_a_failure_before_the_call_is_not_the_calls(stage):
    """
    Scaling a failed version again waits for the new try.
    """
    key = stage.register()
    stage.scale(key, 1)
    stage.fail_load(stage.alive(key)[0])

    stage.scale(key, 1, call="again", wait_s=60.0)
    assert stage.resolved == {}
    stage.load(stage.alive(key)[0])

    assert stage.resolved == {"again": {"outcome": "ready"}}


def test_two_waiting_calls_are_both_answered(stage):
    key = stage.register()
    stage.scale(key, 1, call="one", wait_s=60.0)
    stage.scale(key, 1, call="two", wait_s=60.0)

    stage.load(stage.alive(key)[0])

    assert stage.resolved == {"one": {"outcome": "ready"}, "two": {"outcome": "ready"}}


def test_scaling_to_zero_answers_what_is_queued(stage):
    """
    Nobody would ever come for it.
    """
    key = stage.serve()
    (worker_id,) = stage.alive(key)
    in_hand, ahead, queued = stage.submit(), stage.submit(), stage.submit()

    stage.scale(key, 0)
    assert stage.refused == {queued: "no_worker"}

    assert [*stage.answer(worker_id), *stage.answer(worker_id)] == [in_hand, ahead]
    stage.exit(worker_id, "exit 0")
    assert stage.engine.job_count == 0
