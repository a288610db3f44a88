"""Workers: started, and as many as are wanted."""

from __future__ import annotations

import pytest

from stoker.supervisor import actions as a
from stoker.supervisor.engine import SWEEP_S
from stoker.supervisor.jobs import ImpossibleMove
from stoker.supervisor.ladder import CANCEL_GRACE_S

# -- starting ----------------------------------------------------------------


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


def test_a_process_that_could_not_be_started_is_a_failed_load(stage):
    """
    The loop reports it as an exit without a life.
    """
    key = stage.register()
    stage.scale(key, 1, call="sync", wait_s=60.0)

    stage.exit(stage.alive(key)[0], "could not be started: too many processes")

    assert stage.resolved == {"sync": "load_failed"}


def test_devices_are_placed_and_released_with_every_process(stage):
    key = stage.serve(workers=3)
    stage.exit(stage.alive(key)[1])
    assert len(stage.places.placed) == 3

    stage.scale(key, 0)
    for worker_id in stage.alive(key):
        stage.exit(worker_id)

    assert stage.places.placed == {}


# -- how many ----------------------------------------------------------------


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
