"""The engine as a whole: what operators and clients are promised."""

from __future__ import annotations

import math

import pytest

from stoker.errors import DefaultVersionInUse, ModelNotFound, ShuttingDown, VersionExists
from stoker.supervisor import actions as a
from stoker.supervisor.engine import SWEEP_S, Engine
from stoker.supervisor.jobs import ImpossibleMove
from stoker.supervisor.versions import Failure, VersionKey, VersionState
from stoker.wire.frames import JobFlag, Reply

# -- found by review: each of these was wrong once ------------------------------


def test_a_loaded_worker_that_says_it_cannot_load_is_a_liar(stage):
    """
    It must not stay among the idle ones with a signal on its way.
    """
    key = stage.serve()
    (worker_id,) = stage.alive(key)

    with pytest.raises(ImpossibleMove):
        stage.engine.worker_load_failed(worker_id, Failure("no", "no"), stage.now)
    stage.engine.worker_lied(worker_id, stage.now, "load failed when loaded")
    stage.submit()

    assert stage.sent() == []
    assert stage.signals(worker_id) == ["Kill"]


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


def test_the_sweep_happens_at_the_instant_it_announced(stage):
    """
    Sums of floats round: a loop that wakes exactly when told must not spin.
    """
    just_before_a_coarser_float = math.nextafter(1023.75, math.inf)
    stage.engine.tick(just_before_a_coarser_float)

    stage.now = stage.engine.next_due()
    stage.engine.tick(stage.now)

    assert stage.now < stage.engine.next_due()


def test_a_job_cancelled_in_the_turn_that_sent_it_keeps_its_payload(stage):
    """
    The batch is packed at the end of the turn; an empty payload would be a
    frame the worker cannot read.
    """
    stage.serve()

    job_id = stage.submit(ends_turn=False)
    stage.engine.dispatch(stage.now)
    stage.cancel(job_id)

    (batch,) = stage.took(a.SendBatch)
    assert [b"payload of " + job_id] == [job.payload for job in batch.jobs]
    assert [[job_id]] == [drop.job_ids for drop in stage.took(a.SendDrop)]


@pytest.mark.parametrize(("asked", "told"), [(None, None), ("1.0", "1.0")])
def test_a_full_queue_says_the_version_only_if_it_was_asked_for(stage, asked, told):
    """
    The peer's text differs by whether the path named a version.
    """
    key = stage.register(queue_capacity=1)
    stage.scale(key, 1)
    stage.submit()

    refused = stage.submit(version=asked)

    error = stage.refusal(refused)
    assert ("queue_full", told, 1) == (
        error.code,
        error.details["version"],
        error.details["capacity"],
    )


def test_a_full_queue_is_announced_once_until_it_has_been_half_empty(stage):
    """
    Frontends go by it; a message per request that finds no room would be as dear
    as the refusals it spares.
    """
    key = stage.serve(queue_capacity=4)
    (worker_id,) = stage.alive(key)
    for _ in range(5):
        stage.submit()
    stage.submit()
    stage.answer(worker_id)
    stage.submit()

    (told,) = stage.took(a.Announce)
    assert told.queue[:3] == ("echo", "1.0", True)

    stage.answer(worker_id)
    stage.answer(worker_id)
    stage.submit()
    stage.submit()
    assert len(stage.took(a.Announce)) == 2


def test_a_queue_of_one_place_is_announced_each_time_it_fills(stage):
    """
    It is full or empty, and nothing between.
    """
    key = stage.serve(queue_capacity=1)
    (worker_id,) = stage.alive(key)
    stage.submit()
    assert not stage.took(a.Announce), "the worker has it"

    for _ in range(3):
        stage.submit()
        stage.answer(worker_id)

    assert len(stage.took(a.Announce)) == 3


def test_a_refusal_says_when_to_come_again(stage):
    """
    From what the workers have taken so far: 4 jobs of 3 s wait, so half of
    them are gone after 6 s.
    """
    key = stage.serve(queue_capacity=4)
    (worker_id,) = stage.alive(key)
    for _ in range(2):
        stage.submit()
        stage.now += 3.0
        stage.answer(worker_id)
    for _ in range(5):
        stage.submit()

    error = stage.refusal(stage.submit())

    assert (error.details["place_every_s"], error.details["retry_after_s"]) == (3.0, 6)


def test_payloads_beyond_the_budget_are_refused_and_no_model_takes_all_of_it(stage):
    """
    The supervisor's memory is bounded whatever the frontends send, and a model
    with a long queue of large bodies leaves room for another one's.
    """
    stage.engine = Engine(stage.places, payload_bytes=800)
    for model in ("echo", "other"):
        stage.register(model)
        stage.scale(VersionKey(model, "1.0"), 1)
    submitted = [stage.submit() for _ in range(100)]
    refused = [job_id for job_id in submitted if job_id in stage.refused]

    assert {stage.refused[job_id] for job_id in refused} == {"too_many_requests"}
    assert 600 < stage.engine._budget.taken_bytes < 750
    assert stage.submit("other") not in stage.refused

    for job_id in submitted:
        stage.cancel(job_id)
    assert stage.engine._budget.taken_bytes < 50


def test_expired_jobs_do_not_make_a_batch_look_full(stage):
    """
    What is left may be worth waiting for, and only full batches go ahead.
    """
    key = stage.serve(batch_size=2, delay_s=1.0)
    (worker_id,) = stage.alive(key)
    stage.submit()
    stage.submit()
    stage.forget()
    stage.submit(deadline_s=0.01)
    stage.now += 0.02

    kept = stage.submit()

    assert stage.sent() == []
    stage.answer(worker_id)
    assert stage.sent() == []
    stage.advance(1.0)
    assert [[kept]] == stage.sent()


def test_a_batch_in_front_of_a_describe_job_does_not_wait_for_company(stage):
    """
    Nothing can join it, so waiting out the delay would be for nothing.
    """
    stage.serve(batch_size=8, delay_s=1.0)

    job_id = stage.submit()
    assert stage.sent() == []
    describe = stage.submit(flags=JobFlag.ALONE)

    assert [[job_id], [describe]] == stage.sent()


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


def test_words_of_a_worker_that_is_gone_are_dropped(stage):
    """
    Its last messages may still lie in the socket when the process is reaped.
    """
    key = stage.serve()
    (worker_id,) = stage.alive(key)
    stage.exit(worker_id)
    stage.forget()

    stage.engine.worker_said_hello(worker_id, stage.now)
    stage.engine.worker_loaded(worker_id, stage.now)
    stage.engine.worker_load_failed(worker_id, Failure("no", "no"), stage.now)
    stage.reply(worker_id, Reply(1, True, [], []))
    stage.engine.worker_lied(worker_id, stage.now, "anything")

    stage.end_turn()
    assert [x for x in stage.actions if type(x) is not a.Spawn] == []


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


# -- register and scale ----------------------------------------------------------


def test_there_are_never_more_workers_than_devices_for_them(stage):
    """
    Each takes several of its own (3.5); asking for more gets as many as fit.
    """
    key = stage.register(parallel_type="tp", parallel_level=2, most_workers=2)

    stage.scale(key, 3)

    assert len(stage.alive(key)) == 2
    assert stage.engine.registry.find(*key).crew.min_workers == 2


def test_with_job_tickets_nobody_queues(stage):
    """
    A job is taken only while a worker waits for it (8.6); the rest is told at once.
    """
    key = stage.register(uses_job_tickets=True)
    stage.scale(key, 2)
    too_early = stage.submit()
    for worker_id in stage.alive(key):
        stage.load(worker_id)

    taken = [stage.submit(), stage.submit()]
    too_many = stage.submit()
    stage.answer(stage.alive(key)[0])
    after = stage.submit()

    assert stage.refused == {too_early: "no_worker", too_many: "no_worker"}
    assert [[job] for job in (*taken, after)] == stage.sent()


def test_without_time_limits_nothing_is_silent_for_too_long(stage):
    """
    A debugger may hold a worker while it loads and while it answers (`debug`).
    """
    key = stage.register(has_time_limits=False, startup_timeout_s=1, response_timeout_s=1)
    stage.scale(key, 1)
    (worker_id,) = stage.alive(key)

    stage.advance(1000.0)
    stage.load(worker_id)
    stage.submit()
    stage.advance(100.0)

    assert stage.signals(worker_id) == []


def test_a_version_without_workers_refuses_and_does_not_queue(stage):
    """
    The peer lets requests pile up until the queue is full; we answer at once.
    """
    stage.register()

    job_id = stage.submit()

    assert stage.refused == {job_id: "no_worker"}
    assert stage.refusal(job_id).details == {"model": "echo", "version": None}


def test_jobs_go_to_the_default_version_unless_they_name_one(stage):
    one, two = stage.serve(version="1.0"), stage.serve(version="2.0")

    stage.submit()
    stage.submit(version="2.0")
    stage.submit(version="1.0")
    stage.engine.registry.set_default("echo", "2.0")
    stage.submit()

    assert len(stage.sent(stage.alive(one)[0])) == 2
    assert len(stage.sent(stage.alive(two)[0])) == 2


@pytest.mark.parametrize(
    ("model", "version", "code"),
    [("nobody", None, "model_not_found"), ("echo", "9", "version_not_found")],
)
def test_unknown_names_are_refused(stage, model, version, code):
    stage.serve()

    job_id = stage.submit(model, version)

    assert stage.refused == {job_id: code}


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
    assert served.crew.failure.is_out_of_memory


def test_a_load_that_ran_out_of_memory_says_so(stage):
    key = stage.register()
    stage.scale(key, 1, call="sync", wait_s=60.0)

    stage.fail_load(stage.alive(key)[0], "MemoryError", is_oom=True)

    assert stage.resolved == {"sync": "load_out_of_memory"}


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


# -- unregister --------------------------------------------------------------------


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
    kept = (engine._jobs, engine._workers, engine._leaving, engine._due, engine._touched)
    assert [x for x in kept if x] == []
    assert stage.places.placed == {}


# -- stop ----------------------------------------------------------------------------


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
