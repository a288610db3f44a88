"""The engine as a whole: what operators and clients are promised."""

from __future__ import annotations

import math

import pytest

from stoker.supervisor import actions as a
from stoker.supervisor.engine import SWEEP_S
from stoker.supervisor.jobs import ImpossibleMove
from stoker.supervisor.versions import Failure
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
    describe = stage.submit(flags=JobFlag.DESCRIBE)

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
