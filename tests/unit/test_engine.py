"""The engine as a whole: jobs find their version, and workers that lie do no harm."""

from __future__ import annotations

import math

import pytest

from stoker.supervisor import actions as a
from stoker.supervisor.jobs import ImpossibleMove
from stoker.supervisor.versions import Failure
from stoker.wire.frames import JobFlag, Reply


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
