"""A version that scales itself: woken, grown, shrunk, explained."""

from __future__ import annotations

import pytest

from stoker.supervisor import actions as a
from stoker.supervisor.engine import SWEEP_S
from stoker.supervisor.orphans import Orphan, Orphans
from stoker.supervisor.workers import WorkerState

GIB = 1 << 30


def ask(stage, key, per_s, seconds, took_s=0.1):
    """So many requests a second, answered by whoever has them after `took_s`."""
    for _ in range(round(seconds * per_s)):
        stage.submit()
        stage.advance(1 / per_s)
        for worker_id in stage.alive(key):
            worker = stage.engine.worker(worker_id)
            if worker.state is WorkerState.STARTING:
                stage.load(worker_id)
            elif worker.in_hand and stage.now - worker.batch_since >= took_s:
                stage.answer(worker_id)


def asleep(stage, **spec):
    key = stage.register(**spec)
    stage.scale(key, 0, 2)
    return key


def test_the_first_request_of_a_sleeping_version_waits_for_its_worker(stage):
    """
    Nobody shall see that it slept, but for the time it takes to start.
    """
    key = asleep(stage)
    assert stage.alive(key) == []

    job_id = stage.submit()
    (worker_id,) = stage.alive(key)
    stage.load(worker_id)

    assert stage.sent(worker_id) == [[job_id]]
    assert stage.refused == {}


def test_who_waits_for_the_first_worker_has_a_place_in_the_queue_and_a_deadline(stage):
    asleep(stage, queue_capacity=2)

    one, two, three = stage.submit(deadline_s=1.0), stage.submit(), stage.submit()
    stage.advance(1.0 + 2 * SWEEP_S)

    assert stage.refused == {one: "deadline_exceeded", three: "queue_full"}
    assert len(stage.took(a.Spawn)) == 1, "one start for all of them"
    assert two not in stage.refused


def test_a_version_that_was_never_to_have_workers_refuses_at_once(stage):
    """
    contracts/torchserve.md 1.6: with a maximum of 0 there is nothing to wait for.
    """
    key = stage.register()
    unscaled = stage.submit()
    stage.scale(key, 0, 0)
    scaled = stage.submit()

    assert stage.refused == {unscaled: "no_worker", scaled: "no_worker"}
    assert stage.took(a.Spawn) == []


def test_a_sleeping_version_whose_worker_cannot_load_says_so(stage):
    """
    And does not try again with every request.
    """
    key = asleep(stage)
    first = stage.submit()
    stage.fail_load(stage.alive(key)[0])
    stage.advance(120.0)

    second = stage.submit()

    assert stage.refused == {first: "no_worker", second: "no_worker"}
    assert len(stage.took(a.Spawn)) == 1
    stage.scale(key, 0, 2)
    third = stage.submit()
    assert third not in stage.refused
    assert len(stage.took(a.Spawn)) >= 2, "a scale call is a new try"


def test_an_idle_version_goes_back_to_sleep(stage):
    key = asleep(stage, max_idle_s=30.0)
    stage.submit()
    (worker_id,) = stage.alive(key)
    stage.load(worker_id)
    stage.answer(worker_id)

    stage.advance(30.0 - 2 * SWEEP_S)
    assert stage.took(a.SendLeave) == []
    stage.advance(12.0)

    assert [leave.worker_id for leave in stage.took(a.SendLeave)] == [worker_id]
    stage.exit(worker_id, "exit 0")
    stage.submit()
    assert len(stage.alive(key)) == 1, "and can be woken again"


def test_a_request_that_comes_while_the_last_worker_leaves_starts_another(stage):
    """
    One that has been told to leave takes nothing more.
    """
    key = asleep(stage, max_idle_s=1.0)
    stage.submit()
    (leaving,) = stage.alive(key)
    stage.load(leaving)
    stage.answer(leaving)
    stage.advance(3.0)
    assert stage.worker(leaving).state is WorkerState.DRAINING

    job_id = stage.submit()
    fresh = stage.alive(key)[-1]
    stage.load(fresh)

    assert fresh != leaving
    assert stage.sent(fresh) == [[job_id]]


def test_load_brings_workers_and_the_log_says_why(stage):
    key = stage.register(queue_capacity=1000)
    stage.scale(key, 1, 3)

    ask(stage, key, per_s=30, seconds=10)

    assert len(stage.alive(key)) == 3
    notes = stage.notes("model autoscales")
    assert [note["wanted"] for note in notes if note["wanted"] != note["workers"]][-1] == 3
    assert {"why", "requests_per_s", "wait_p99_s", "batch_fill", "queued"} <= set(notes[-1])


def test_a_fixed_number_of_workers_stays_whatever_comes(stage):
    """
    contracts/README.md, `max_worker`: min = max keeps the count.
    """
    key = stage.serve(workers=1, queue_capacity=1000)

    ask(stage, key, per_s=30, seconds=10)
    stage.advance(300.0)

    assert len(stage.took(a.Spawn)) == 1
    assert stage.served(key).autoscaler is None
    assert stage.notes("model autoscales") == []


def test_who_scales_down_finishes_what_is_in_hand(stage):
    """
    The worker that is idle goes, and nothing it holds is lost.
    """
    key = stage.register(max_idle_s=5.0, queue_capacity=1000)
    stage.scale(key, 1, 2)
    ask(stage, key, per_s=30, seconds=5)
    assert len(stage.alive(key)) == 2
    while stage.engine.job_count:
        for worker_id in stage.alive(key):
            if stage.worker(worker_id).in_hand:
                stage.answer(worker_id)
    in_hand = stage.submit()
    (busy,) = [w for w in stage.alive(key) if stage.worker(w).in_hand]

    stage.served(key).crew.resize(1, stage.now)
    stage.end_turn()

    assert stage.worker(busy).state is WorkerState.BUSY, "the idle one goes"
    assert stage.answer(busy) == [in_hand]


def test_where_workers_die_none_is_added(stage):
    """
    A new place would begin with a clean account: a way around the back-off.
    """
    key = stage.register(queue_capacity=1000)
    stage.scale(key, 1, 8)
    (worker_id,) = stage.alive(key)
    stage.load(worker_id)
    stage.exit(worker_id, "signal 11")
    stage.exit(stage.alive(key)[0], "signal 11")
    for _ in range(100):
        stage.submit()

    stage.advance(0.75)

    assert stage.alive(key) == []
    assert len(stage.served(key).crew.slots.staying) == 1


def test_growth_waits_for_memory_and_goes_on_when_there_is_some(stage):
    """
    A worker too many makes all of them slow, or has one killed.
    """
    key = stage.register(queue_capacity=1000, required_memory_bytes=2 * GIB)
    stage.scale(key, 1, 4)
    stage.load(stage.alive(key)[0])
    stage.engine.memory.available_bytes = 1 * GIB
    ask(stage, key, per_s=40, seconds=10)
    assert len(stage.alive(key)) == 1
    why = "more are needed than there is memory for"
    assert [note["why"] for note in stage.notes("model autoscales")] == [why], "said once"

    stage.engine.memory.available_bytes = 5 * GIB
    for _ in range(100):
        stage.submit()
    stage.advance(2 * SWEEP_S)

    assert len(stage.alive(key)) == 3


def test_a_sleeping_version_without_memory_waits_for_that(stage):
    key = asleep(stage, required_memory_bytes=2 * GIB)
    stage.engine.memory.available_bytes = 1 * GIB

    job_id = stage.submit()
    stage.advance(2.0)
    assert stage.alive(key) == []
    assert stage.refused == {}
    stage.engine.memory.available_bytes = 3 * GIB
    stage.advance(2 * SWEEP_S)
    (worker_id,) = stage.alive(key)
    stage.load(worker_id)

    assert stage.sent(worker_id) == [[job_id]]


def test_unregistering_while_it_grows_leaves_nothing(stage):
    key = stage.register(queue_capacity=1000)
    stage.scale(key, 0, 4)
    for _ in range(100):
        stage.submit()
    stage.advance(1.0)
    assert stage.alive(key)

    stage.unregister(key)
    for worker_id in stage.alive(key):
        stage.exit(worker_id, "signal 9")

    assert stage.resolved == {"unregister": {}}
    assert set(stage.refused.values()) == {"unregistered"}
    assert stage.engine.job_count == 0
    assert not stage.engine.memory.is_shared


@pytest.mark.parametrize(("low", "high", "kept"), [(1, 3, 3), (1, 1, 1), (0, 2, 2)])
def test_a_successor_keeps_the_workers_that_load_has_brought(stage, low, high, kept):
    """
    Killing three of four because the minimum is one would be a restart that clients feel.
    """
    orphans = [("", Orphan(50 + n, 9050 + n, 4000 + n)) for n in range(3)]
    stage.places.keep = lambda worker_id, spec, uuids: stage.places.place(worker_id, spec)
    stage.engine.numbers.inherit(Orphans(living=orphans), 100, 9100)

    key = stage.register()
    stage.scale(key, low, high)

    assert len(stage.took(a.Adopt)) == kept
    assert stage.took(a.Spawn) == []


def test_readiness_of_a_sleeping_version(stage):
    key = asleep(stage)

    crew = stage.served(key).crew

    assert crew.is_asleep
    assert crew.is_settled
    assert crew.is_healthy(stage.now)
