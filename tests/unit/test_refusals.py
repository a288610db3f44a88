"""Jobs that find no room, no worker or no memory are refused at once."""

from __future__ import annotations

import pytest

from stoker.supervisor import actions as a
from stoker.supervisor.engine import Engine
from stoker.supervisor.versions import VersionKey


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


def test_a_version_without_workers_refuses_and_does_not_queue(stage):
    """
    The peer lets requests pile up until the queue is full; we answer at once.
    """
    stage.register()

    job_id = stage.submit()

    assert stage.refused == {job_id: "no_worker"}
    assert stage.refusal(job_id).details == {"model": "echo", "version": None}
