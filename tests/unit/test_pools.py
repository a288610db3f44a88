"""Jobs of one version: in, out, back, and their ends."""

from __future__ import annotations

import pytest

from stoker.supervisor import actions as a
from stoker.wire.frames import Group, JobFlag, Reply


@pytest.fixture
def echo(stage):
    """One idle worker, batch size 1."""
    (worker_id,) = stage.alive(stage.serve())
    return worker_id


def test_a_free_worker_gets_a_job_at_once(stage, echo):
    job_id = stage.submit()

    assert stage.sent(echo) == [[job_id]]


def test_a_submitted_burst_fills_batches_before_it_is_sent(stage):
    """
    Dispatch comes at the end of the turn, so jobs that arrived together travel together.
    """
    stage.serve(batch_size=4)

    job_ids = [stage.submit(ends_turn=False) for _ in range(6)]
    stage.end_turn()

    assert stage.sent() == [job_ids[:4]]


def test_partial_batch_waits_for_an_idle_worker(stage):
    """
    It can still grow while all workers are busy; only full ones go ahead.
    """
    (worker_id,) = stage.alive(stage.serve(batch_size=4))
    stage.submit()
    waiting = [stage.submit() for _ in range(3)]
    assert len(stage.sent()) == 1

    waiting.append(stage.submit())
    late = stage.submit()

    assert stage.sent()[1:] == [waiting]
    stage.answer(worker_id)
    stage.answer(worker_id)
    assert stage.sent()[2:] == [[late]]


def test_partial_batch_leaves_when_its_delay_has_passed(stage):
    stage.serve(batch_size=4, delay_s=0.1)
    job_ids = [stage.submit()]
    stage.advance(0.06)
    job_ids.append(stage.submit())

    stage.advance(0.039)
    assert stage.sent() == []
    stage.advance(0.002)

    assert stage.sent() == [job_ids]


def test_the_delay_runs_while_all_workers_are_busy(stage):
    """
    It counts from arrival, so it is over when a worker becomes free.
    """
    (worker_id,) = stage.alive(stage.serve(batch_size=4, delay_s=0.1))
    stage.submit()
    stage.advance(0.1)
    waiting = stage.submit()
    stage.advance(1.0)

    stage.answer(worker_id)

    assert stage.sent()[1:] == [[waiting]]


def test_a_cancelled_first_job_does_not_send_the_rest_early(stage):
    """
    The delay is that of the oldest job that is still there.
    """
    stage.serve(batch_size=4, delay_s=0.1)
    first = stage.submit()
    stage.advance(0.05)
    second = stage.submit()

    stage.cancel(first)
    stage.advance(0.06)
    assert stage.sent() == []
    stage.advance(0.05)

    assert stage.sent() == [[second]]


def test_full_queue_refuses_at_once(stage):
    """
    A client that must go elsewhere should know it now.
    """
    key = stage.register(queue_capacity=2)
    stage.scale(key, 1)
    accepted = [stage.submit(), stage.submit()]

    refused = stage.submit()

    assert stage.refused == {refused: "queue_full"}
    assert stage.engine.job_count == len(accepted)


def test_jobs_sent_ahead_count_against_the_capacity(stage):
    """
    They may come back, and the bound is a bound.
    """
    stage.serve(queue_capacity=1)
    in_hand, ahead = stage.submit(), stage.submit()
    assert stage.sent() == [[in_hand], [ahead]]

    refused = stage.submit()

    assert stage.refused == {refused: "queue_full"}


def test_cancelled_job_costs_no_worker_time(stage):
    (worker_id,) = stage.alive(stage.serve(queue_capacity=10))
    stage.submit()
    stage.submit()
    waiting, other = stage.submit(), stage.submit()

    stage.cancel(waiting)
    stage.answer(worker_id)
    stage.answer(worker_id)

    assert stage.sent()[2:] == [[other]]
    assert stage.refused == {}, "the client left; nobody is told"


def test_a_sent_job_that_is_cancelled_is_dropped_by_its_worker(stage, echo):
    job_id = stage.submit()

    stage.cancel(job_id)

    assert stage.took(a.SendDrop) == [(echo, [job_id])]
    assert stage.engine.job_count == 0


def test_late_answer_for_a_cancelled_job_is_taken_and_forwarded(stage, echo):
    """
    The frontend knows that nobody waits; to us the batch is done.
    """
    job_id = stage.submit()
    stage.cancel(job_id)

    stage.answer(echo)
    stage.submit()

    assert len(stage.sent(echo)) == 2
    assert stage.refused == {}


def test_cancelling_what_has_ended_does_nothing(stage, echo):
    job_id = stage.submit()
    stage.answer(echo)
    stage.forget()

    stage.cancel(job_id)
    stage.cancel(b"never seen ------")

    assert stage.took(a.SendDrop) == []


def test_resent_job_id_is_dropped(stage, echo):
    """
    A frontend re-sends what is unanswered when it reconnects; that must be safe.
    """
    in_hand, waiting = stage.submit(), stage.submit()

    stage.submit(job_id=in_hand)
    stage.submit(job_id=waiting)

    assert stage.sent() == [[in_hand], [waiting]]
    assert stage.refused == {}
    assert stage.engine.job_count == 2


def test_expired_jobs_never_reach_a_worker(stage, echo):
    """
    A client that gave up must not cost GPU time (pytorch/serve#1322).
    """
    stage.submit()
    stage.submit()
    expired = stage.submit(deadline_s=0.3)

    stage.now += 0.4
    stage.answer(echo)
    stage.answer(echo)

    assert len(stage.sent()) == 2
    assert stage.refused == {expired: "deadline_exceeded"}


def test_expired_jobs_are_refused_by_the_sweep_without_any_worker(stage):
    """
    A client need not wait for a worker to learn that it waited too long.
    """
    key = stage.register()
    stage.scale(key, 1)
    job_id = stage.submit(deadline_s=0.3)

    stage.advance(0.8)

    assert stage.refused == {job_id: "deadline_exceeded"}


def test_a_job_that_arrives_too_late_is_refused(stage, echo):
    job_id = stage.submit(deadline_s=-1.0)

    assert stage.sent() == []
    assert stage.refused == {job_id: "deadline_exceeded"}


def test_the_versions_own_client_timeout_shortens_a_deadline(stage):
    """
    clientTimeoutInMills, contracts/torchserve.md 8.4; but with an answer.
    """
    key = stage.register(client_timeout_s=0.5)
    stage.scale(key, 1)
    job_id = stage.submit(deadline_s=60.0)

    stage.advance(1.0)

    assert stage.refused == {job_id: "deadline_exceeded"}


def test_a_sent_job_does_not_expire(stage, echo):
    """
    From here on response_timeout bounds it.
    """
    job_id = stage.submit(deadline_s=0.3)

    stage.advance(1.0)

    assert stage.refused == {}
    assert stage.answer(echo) == [job_id]


def test_a_clients_own_deadline_holds_in_a_workers_hand(stage, echo):
    """
    Its client is told, its handler too, and what else is in the batch goes on.
    """
    job_id = stage.submit(deadline_s=0.3, flags=JobFlag.ENDS_IN_HAND)

    stage.advance(1.0)

    assert stage.refused == {job_id: "deadline_exceeded"}
    assert stage.took(a.SendDrop) == [(echo, [job_id])]
    assert stage.answer(echo) == [job_id]
    assert stage.worker(echo).is_idle


def test_the_versions_client_timeout_holds_in_a_workers_hand(stage):
    """
    clientTimeoutInMills: the peer drops such an answer; here the client is told as well.
    """
    stage.serve(client_timeout_s=0.5)
    job_id = stage.submit()

    stage.advance(1.0)

    assert stage.refused == {job_id: "deadline_exceeded"}


def test_a_stream_that_has_begun_is_let_finish(stage, echo):
    """
    What has its first piece is wanted.
    """
    stage.submit(deadline_s=0.3, flags=JobFlag.ENDS_IN_HAND)
    batch_id = stage.worker(echo).in_hand[0].batch_id
    stage.reply(echo, Reply(batch_id, False, [], [Group(b"frontend", b"piece")]))

    stage.advance(1.0)

    assert stage.refused == {}


def test_a_job_sent_ahead_waits_no_longer_than_one_in_the_queue(stage, echo):
    """
    It has only been begun when its worker takes it up.
    """
    stage.submit()
    ahead = stage.submit(deadline_s=0.3)
    assert stage.sent(echo)[1:] == [[ahead]]

    stage.advance(1.0)

    assert stage.refused == {ahead: "deadline_exceeded"}
    assert stage.took(a.SendDrop) == [(echo, [ahead])]
    assert stage.served(("echo", "1.0")).pool.queue.pending == 0


def test_a_job_sent_ahead_whose_client_left_is_not_pending(stage, echo):
    """
    Its place is free for somebody who waits.
    """
    queue = stage.served(("echo", "1.0")).pool.queue
    stage.submit()
    ahead = stage.submit()
    assert queue.pending == 1

    stage.cancel(ahead)
    assert queue.pending == 0
    stage.answer(echo)
    stage.answer(echo)

    assert (queue.pending, queue.ahead) == (0, 0)
    assert stage.worker(echo).is_idle


def test_a_frontend_that_is_gone_takes_its_jobs_along(stage):
    (worker_id,) = stage.alive(stage.serve())
    gone = [stage.submit(frontend=b"frontgon") for _ in range(3)]
    stays = stage.submit()

    stage.engine.forget_frontend(b"frontgon", stage.now)
    stage.end_turn()
    stage.answer(worker_id)
    stage.answer(worker_id)

    assert stage.took(a.SendDrop) == [(worker_id, [gone[0]]), (worker_id, [gone[1]])]
    assert stage.sent()[2:] == [[stays]]


def test_describe_job_goes_alone_and_lets_nothing_pass(stage):
    (worker_id,) = stage.alive(stage.serve(batch_size=4))
    stage.submit()
    before = stage.submit()
    describe = stage.submit(flags=JobFlag.ALONE)
    after = stage.submit()

    for _ in range(4):
        stage.answer(worker_id)

    assert stage.sent()[1:] == [[before], [describe], [after]]


# -- answers --------------------------------------------------------------------


def test_answers_go_to_their_frontends_unread(stage, echo):
    stage.submit()
    batch = stage.worker(echo).in_hand[0]
    groups = [Group(b"frontend", b"one"), Group(b"frontwo.", b"two")]

    stage.reply(echo, Reply(batch.batch_id, True, [batch.jobs[0].job_id], groups))

    assert stage.took(a.Forward) == [(b"frontend", b"one"), (b"frontwo.", b"two")]


def test_pieces_of_a_stream_are_forwarded_and_end_nothing(stage, echo):
    job_id = stage.submit()
    batch_id = stage.worker(echo).in_hand[0].batch_id

    for piece in (b"one", b"two"):
        stage.reply(echo, Reply(batch_id, False, [], [Group(b"frontend", piece)]))

    assert [frame for _, frame in stage.took(a.Forward)] == [b"one", b"two"]
    assert stage.engine.job_count == 1
    assert stage.answer(echo) == [job_id]


def test_a_job_may_end_before_its_batch(stage):
    """
    A worker that has one answer early need not hold it back.
    """
    (worker_id,) = stage.alive(stage.serve(batch_size=2))
    stage.submit(ends_turn=False)
    stage.submit()
    batch = stage.worker(worker_id).in_hand[0]
    batch_id, jobs = batch.batch_id, batch.jobs

    stage.reply(worker_id, Reply(batch_id, False, [jobs[0].job_id], [Group(b"frontend", b"1")]))
    assert stage.engine.job_count == 1
    stage.reply(worker_id, Reply(batch_id, True, [jobs[1].job_id], [Group(b"frontend", b"2")]))

    assert stage.engine.job_count == 0
    assert stage.refused == {}


def test_a_job_its_worker_left_unanswered_is_answered_by_us(stage, echo):
    """
    A client must never hang on a handler's mistake.
    """
    job_id = stage.submit()

    stage.reply(echo, Reply(stage.worker(echo).in_hand[0].batch_id, True, [], []))

    assert stage.refused == {job_id: "bad_handler_result"}


def test_several_replies_in_one_message_are_taken_in_order(stage, echo):
    stage.submit()
    stage.submit()
    batches = list(stage.worker(echo).in_hand)

    stage.reply(
        echo,
        *[Reply(batch.batch_id, True, [job.job_id for job in batch.jobs], []) for batch in batches],
    )

    assert stage.engine.job_count == 0
    assert stage.worker(echo).is_idle


def test_a_worker_cannot_end_jobs_of_another(stage):
    """
    What it says about others is not heard.
    """
    first, second = stage.alive(stage.serve(workers=2))
    stage.submit()
    stage.submit()
    (of_first,) = stage.sent(first)
    (of_second,) = stage.sent(second)

    batch_id = stage.worker(first).in_hand[0].batch_id
    stage.reply(first, Reply(batch_id, False, of_second, []))

    assert stage.engine.job_count == 2
    assert stage.answer(second) == of_second
    assert stage.answer(first) == of_first


@pytest.mark.parametrize("number", [0, 999])
def test_a_reply_for_a_batch_not_in_hand_costs_the_worker_its_life(stage, echo, number):
    """
    Out of order, or invented: it cannot be trusted with anything more.
    """
    job_id, ahead = stage.submit(), stage.submit()
    wrong = number or stage.worker(echo).in_hand[1].batch_id

    stage.reply(echo, Reply(wrong, True, [job_id], []))
    assert stage.signals(echo) == ["Kill"]
    stage.exit(echo, "signal 9")

    assert stage.refused == {job_id: "worker_died"}
    assert stage.engine.job_count == 1, "the batch it had not started waits for the next worker"
    stage.load(stage.alive()[0])
    assert stage.sent()[2:] == [[ahead]]


# -- back -----------------------------------------------------------------------


def test_unstarted_batches_of_a_dead_worker_go_back_in_order(stage):
    """
    Only what it had begun is lost; the rest keeps its place before later arrivals.
    """
    key = stage.serve(workers=2)
    first, second = stage.alive(key)
    for worker_id in (first, second):
        stage.worker(worker_id).service_time_s = 0.0001
    started = [stage.submit(), stage.submit()]
    ahead = [stage.submit() for _ in range(18)]
    later = [stage.submit() for _ in range(5)]
    assert len(stage.sent()) == 20
    dying = [x for batch in stage.sent(first) for x in batch]

    stage.exit(first, "signal 11")

    lost = [job_id for job_id in dying if job_id in started]
    assert stage.refused == dict.fromkeys(lost, "worker_died")
    waiting = [job.job_id for job in stage.served(key).pool.queue]
    assert waiting == [*[x for x in ahead if x in dying], *later]


def test_a_cancelled_job_is_not_given_back(stage):
    key = stage.serve()
    (worker_id,) = stage.alive(key)
    stage.submit()
    cancelled, kept = stage.submit(), stage.submit()
    stage.cancel(cancelled)

    stage.exit(worker_id)
    stage.load(stage.alive(key)[0])

    assert stage.sent()[2:] == [[kept]]


# -- short batches, and many that wait ------------------------------------------------------


def short_and_deep(stage, count=40):
    """A worker of half milliseconds, and so many jobs; the ids of those."""
    (worker_id,) = stage.alive(stage.serve())
    job_ids = [stage.submit() for _ in range(count)]
    for _ in range(10):
        stage.advance(0.000_5)
        stage.answer(worker_id)
    return worker_id, job_ids


def reply_to(worker, count):
    """Its next replies, as one look at it may bring them."""
    batches = list(worker.in_hand)[:count]
    ended = [[job.job_id for job in batch.jobs] for batch in batches]
    return [
        Reply(batch.batch_id, True, ids, [Group(b"frontend", b"answer")])
        for batch, ids in zip(batches, ended, strict=True)
    ]


def test_while_many_wait_a_short_handler_is_given_more_and_looked_at_later(stage):
    worker_id, _ = short_and_deep(stage)
    worker = stage.worker(worker_id)
    stage.forget()

    stage.advance(0.000_5)
    stage.answer(worker_id)

    (gather,) = stage.took(a.LetGather)
    held = len(worker.in_hand)
    assert held == 15  # 14 held are no more than wait behind them; 15 are
    assert gather == (worker_id, pytest.approx(held / 2 * 0.000_5))


def test_what_gathered_is_answered_in_order_and_each_took_its_share(stage):
    worker_id, job_ids = short_and_deep(stage)
    worker = stage.worker(worker_id)
    known_s = worker.service_time_s
    done = len(job_ids) - stage.engine.job_count

    stage.advance(0.003)
    stage.reply(worker_id, *reply_to(worker, 6))

    assert stage.engine.job_count == len(job_ids) - done - 6
    assert worker.service_time_s == pytest.approx(known_s)
    assert worker.batch_since == worker.quiet_since == stage.now
    assert len(worker.in_hand) >= 9


def test_when_few_wait_answers_are_looked_at_as_they_come(stage):
    """
    Its client may have nothing else to wait for.
    """
    worker_id, _ = short_and_deep(stage, count=13)
    stage.forget()

    for _ in range(2):
        stage.advance(0.000_5)
        stage.answer(worker_id)

    assert stage.took(a.LetGather) == []


def test_nobody_is_left_alone_who_is_suspected_to_be_killed_by_what_waits(stage):
    """
    With one in hand at a time the next death names its cause.
    """
    key = stage.serve(max_attempts=3)
    (worker_id,) = stage.alive(key)
    for _ in range(40):
        stage.submit()
    for _ in range(10):
        stage.advance(0.000_5)
        stage.answer(worker_id)
    stage.exit(worker_id)
    stage.forget()
    stage.advance(1.0)
    (successor,) = stage.alive(key)
    stage.load(successor)

    stage.advance(0.000_5)
    stage.answer(successor)

    assert len(stage.worker(successor).in_hand) == 1
    assert stage.took(a.LetGather) == []
