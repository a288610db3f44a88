"""A worker's death costs its clients nothing when it can be helped."""

from __future__ import annotations

import pytest

from stoker.supervisor import actions as a
from stoker.supervisor.quarantine import Loss, is_tried_again
from stoker.wire.frames import Group, Reply


@pytest.mark.parametrize("loss", Loss)
@pytest.mark.parametrize("attempts", [1, 2, 3])
@pytest.mark.parametrize("has_sent_pieces", [False, True])
def test_only_a_crash_with_nothing_sent_is_tried_again(
    make_job, loss: Loss, attempts: int, has_sent_pieces: bool
) -> None:
    """
    Half a stream cannot be taken back, and what hangs once hangs twice.
    """
    job = make_job()
    job.attempts = attempts

    verdict = is_tried_again(job, loss, 3, has_sent_pieces=has_sent_pieces)

    assert verdict == (loss is Loss.CRASHED and attempts < 3 and not has_sent_pieces)


def test_a_job_whose_worker_died_is_answered_by_the_next_one(stage) -> None:
    """
    kill -9 of the only worker: its client waits a moment and notices nothing else.
    """
    key = stage.serve(max_attempts=2)
    job_id = stage.submit()

    stage.exit(stage.alive(key)[0], "SIGKILL")
    (successor,) = stage.alive(key)
    stage.load(successor)

    assert stage.sent(successor) == [[job_id]]
    assert stage.answer(successor) == [job_id]
    assert stage.refused == {}


def test_of_a_batch_that_died_together_the_killer_dies_alone(stage) -> None:
    """
    Batch of 8 with one killer: 7 answers, 1 typed error, 2 deaths.
    """
    key = stage.serve(max_attempts=2, batch_size=8)
    job_ids = [stage.submit(ends_turn=False) for _ in range(8)]
    stage.end_turn()
    killer = job_ids[4]
    deaths = 0

    for _ in range(40):
        (worker_id,) = stage.alive(key) or [None]
        if worker_id is None:
            stage.advance(1.0)
            continue
        if stage.worker(worker_id).loaded_at is None:
            stage.load(worker_id)
        in_hand = stage.worker(worker_id).in_hand
        if not in_hand:
            break
        if killer in [job.job_id for job in in_hand[0].jobs]:
            deaths += 1
            stage.exit(worker_id, "SIGSEGV")
        else:
            stage.answer(worker_id)

    assert stage.refused == {killer: "worker_died"}
    assert deaths == 2


def test_while_there_are_suspects_nothing_is_sent_ahead(stage) -> None:
    """
    With one batch in hand at a time, the next death names its cause.
    """
    key = stage.serve(max_attempts=3)
    for _ in range(3):
        stage.submit()
    stage.exit(stage.alive(key)[0], "SIGSEGV")
    (successor,) = stage.alive(key)

    stage.load(successor)

    assert len(stage.sent(successor)) == 1
    stage.answer(successor)
    assert len(stage.sent(successor)) == 2


def test_a_stream_that_has_begun_is_not_begun_again(stage) -> None:
    """
    The client has the first pieces; a second beginning would be a lie.
    """
    key = stage.serve(max_attempts=2)
    job_id = stage.submit()
    (worker_id,) = stage.alive(key)
    (batch,) = [x for x in stage.took(a.SendBatch) if x.worker_id == worker_id]
    stage.reply(worker_id, Reply(batch.batch_id, False, [], [Group(job_id[:8], b"piece")]))

    stage.exit(worker_id, "SIGKILL")

    assert stage.refused == {job_id: "worker_died"}


def test_a_silent_workers_job_is_not_tried_again(stage) -> None:
    """
    Its client has waited for one response_timeout already.
    """
    key = stage.serve(max_attempts=5, response_timeout_s=2.0)
    job_id = stage.submit()
    (worker_id,) = stage.alive(key)
    stage.advance(2.5)

    stage.exit(worker_id, "SIGABRT")

    assert stage.refused == {job_id: "worker_died"}
