"""Jobs that join and leave a worker's hand one by one."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stoker.supervisor import actions as a
from stoker.supervisor.concurrent_pools import PATIENCE_S, Run, choose_empty, choose_roomiest
from stoker.supervisor.workers import Worker, WorkerState
from stoker.wire.frames import Group, JobFlag, Reply

FRONTEND = b"frontend"
PIECE = [Group(FRONTEND, b"piece")]


def batch_of(stage, worker_id, job_id):
    (run,) = [r for r in stage.worker(worker_id).in_hand if r.jobs[0].job_id == job_id]
    return run.batch_id


def piece(stage, worker_id, *job_ids):
    replies = [Reply(batch_of(stage, worker_id, j), False, [], PIECE) for j in job_ids]
    stage.reply(worker_id, *replies)


def end(stage, worker_id, *job_ids):
    replies = [Reply(batch_of(stage, worker_id, j), True, [j], PIECE) for j in job_ids]
    stage.reply(worker_id, *replies)


@pytest.fixture
def worker_id(stage):
    """One that works on three jobs at once."""
    (one,) = stage.alive(stage.serve(jobs_at_once=3, max_attempts=2))
    return one


def test_a_job_joins_a_worker_that_has_room(stage, worker_id):
    """
    Without waiting for company or for the end of what runs.
    """
    job_ids = [stage.submit() for _ in range(3)]

    assert stage.sent(worker_id) == [[job_id] for job_id in job_ids]


def test_no_worker_holds_more_than_it_may(stage, worker_id):
    """
    The batch size is what the model's memory allows.
    """
    for _ in range(5):
        stage.submit()

    assert len(stage.worker(worker_id).in_hand) == 3
    assert len(stage.sent()) == 3


def test_jobs_end_in_any_order_and_the_next_one_takes_the_place(stage, worker_id):
    first, second, _, waiting = [stage.submit() for _ in range(4)]

    end(stage, worker_id, second)

    assert stage.sent(worker_id)[-1] == [waiting]
    assert first in [run.jobs[0].job_id for run in stage.worker(worker_id).in_hand]


def test_the_emptiest_worker_gets_the_next_job(stage):
    """
    A step takes longer the more requests there are.
    """
    one, other = stage.alive(stage.serve(jobs_at_once=3, workers=2))

    for _ in range(4):
        stage.submit()

    assert len(stage.sent(one)) == len(stage.sent(other)) == 2


def test_a_job_that_travels_alone_waits_for_an_empty_worker(stage, worker_id):
    """
    A handler's question about itself is never batched; and nobody overtakes it for ever.
    """
    running = stage.submit()
    alone = stage.submit(flags=JobFlag.ALONE)
    behind = stage.submit()
    assert stage.sent() == [[running]]

    end(stage, worker_id, running)
    assert stage.sent()[1:] == [[alone]]
    end(stage, worker_id, alone)

    assert stage.sent()[2:] == [[behind]]


def test_what_never_ends_holds_up_nobody_for_ever(stage, worker_id):
    """
    A stream may; who wants the worker to himself is passed by after a while.
    """
    stage.submit()
    alone = stage.submit(flags=JobFlag.ALONE)
    behind = stage.submit()

    stage.advance(PATIENCE_S - 0.1)
    assert [behind] not in stage.sent()
    stage.advance(0.2)

    assert [behind] in stage.sent()
    assert [alone] not in stage.sent()


def test_a_suspect_is_alone_for_a_step(stage, worker_id):
    """
    Then its worker has survived it, and others may join: its stream may take long.
    """
    suspects = [stage.submit(), stage.submit()]
    stage.exit(worker_id, "signal 11")
    (successor,) = stage.alive()
    stage.load(successor)
    new = stage.submit()
    stage.forget()

    piece(stage, successor, suspects[0])
    assert stage.sent() == []
    stage.advance(PATIENCE_S + 0.1)
    assert stage.sent() == [[suspects[1]]]
    piece(stage, successor, suspects[1])

    assert stage.sent()[1:] == [[new]]


def test_a_job_that_ends_with_a_piece_is_answered_once(stage, worker_id):
    job_id = stage.submit()

    piece(stage, worker_id, job_id)
    piece(stage, worker_id, job_id)
    end(stage, worker_id, job_id)

    assert len(stage.took(a.Forward)) == 3
    assert stage.engine.job_count == 0
    assert stage.worker(worker_id).state is WorkerState.READY


def test_a_cancelled_job_keeps_its_place_until_the_worker_lets_it_go(stage, worker_id):
    """
    Until then it takes room in the model's memory.
    """
    job_ids = [stage.submit() for _ in range(4)]

    stage.cancel(job_ids[0])
    assert [drop.job_ids for drop in stage.took(a.SendDrop)] == [[job_ids[0]]]
    assert len(stage.sent()) == 3
    end(stage, worker_id, job_ids[0])

    assert stage.sent()[3:] == [[job_ids[3]]]
    assert stage.refused == {}


def test_silence_is_counted_from_the_last_step(stage):
    """
    A running batch may live for ever; a step may not.
    """
    (worker_id,) = stage.alive(stage.serve(jobs_at_once=3, response_timeout_s=10))
    job_id = stage.submit()

    for _ in range(5):
        stage.advance(8)
        piece(stage, worker_id, job_id)
    assert stage.worker(worker_id).stalled_at is None
    stage.advance(11)

    assert stage.worker(worker_id).stalled_at is not None
    assert stage.refused == {job_id: "worker_died"}


def test_a_sign_of_life_is_no_piece_of_an_answer(stage):
    """
    An asynchronous worker says that its loop turns; its requests can still be tried again.
    """
    spec = {"jobs_at_once": 3, "response_timeout_s": 10, "max_attempts": 2}
    (worker_id,) = stage.alive(stage.serve(**spec))
    job_id = stage.submit()

    for _ in range(5):
        stage.advance(8)
        stage.reply(worker_id, Reply(batch_of(stage, worker_id, job_id), False, [], []))
    assert stage.worker(worker_id).stalled_at is None
    stage.exit(worker_id, "signal 9")

    assert stage.refused == {}
    (again,) = stage.took(a.Retry)
    assert again.job_id == job_id


def test_of_a_dead_workers_jobs_those_without_a_piece_are_tried_again_alone(stage, worker_id):
    """
    A stream that has begun cannot begin again; the others can, and one of them may be why.
    """
    streaming, silent, other = [stage.submit() for _ in range(3)]
    piece(stage, worker_id, streaming)
    stage.forget()

    stage.exit(worker_id, "signal 11")
    (successor,) = stage.alive()
    stage.load(successor)

    assert stage.refused == {streaming: "worker_died"}
    assert stage.sent(successor) == [[silent]]
    end(stage, successor, silent)
    assert stage.sent(successor) == [[silent], [other]]


def test_who_kills_alone_twice_is_convicted(stage, worker_id):
    """
    Poison in a running batch is found as it is in a batch.
    """
    poison, innocent = stage.submit(body=b"poison"), stage.submit(body=b"good")
    stage.exit(worker_id, "signal 11")
    (second,) = stage.alive()
    stage.load(second)
    assert stage.sent(second) == [[poison]]
    stage.exit(second, "signal 11")
    (third,) = stage.alive()
    stage.load(third)

    assert stage.refused == {poison: "worker_died"}
    assert stage.sent(third) == [[innocent]]
    assert stage.submit(body=b"poison") in stage.refused


def test_a_handler_that_gives_up_in_time_spares_its_worker(stage):
    """
    As in a batch: told to stop, it lets all go, and they are tried again one by one.
    """
    spec = {"jobs_at_once": 3, "response_timeout_s": 10, "max_attempts": 2}
    (worker_id,) = stage.alive(stage.serve(**spec))
    first, second = stage.submit(), stage.submit()
    stage.advance(10.5)
    assert stage.worker(worker_id).state is WorkerState.STALLED
    stage.forget()

    stage.reply(worker_id, Reply(batch_of(stage, worker_id, second), True, [second], []))
    assert stage.sent() == []
    stage.reply(worker_id, Reply(batch_of(stage, worker_id, first), True, [first], []))

    assert stage.worker(worker_id).state is WorkerState.BUSY
    assert stage.sent(worker_id) == [[first]]
    assert stage.signals(worker_id) == []
    end(stage, worker_id, first)
    assert stage.sent(worker_id)[1:] == [[second]]


def test_a_draining_worker_finishes_what_runs_and_gets_nothing_more(stage):
    key = stage.serve(jobs_at_once=3)
    (worker_id,) = stage.alive(key)
    running = stage.submit()

    stage.scale(key, 0)
    stage.submit()
    piece(stage, worker_id, running)
    end(stage, worker_id, running)

    assert stage.sent() == [[running]]
    assert [leave.worker_id for leave in stage.took(a.SendLeave)] == [worker_id]


def test_a_drain_that_takes_too_long_breaks_streams_off(stage):
    key = stage.serve(jobs_at_once=3)
    (worker_id,) = stage.alive(key)
    running = stage.submit()
    piece(stage, worker_id, running)

    stage.scale(key, 0, drain_s=2.0)
    stage.advance(2.5)
    stage.exit(worker_id, "signal 9")

    assert stage.signals(worker_id) == ["Kill"]
    assert stage.refused == {running: "no_worker"}


def test_a_clients_own_deadline_holds_until_its_stream_begins(stage, worker_id):
    """
    What has begun to come is wanted to its end.
    """
    flags = JobFlag.ENDS_IN_HAND
    silent = stage.submit(deadline_s=1.0, flags=flags)
    streaming = stage.submit(deadline_s=1.0, flags=flags)
    piece(stage, worker_id, streaming)

    stage.advance(1.5)

    assert stage.refused == {silent: "deadline_exceeded"}
    assert [drop.job_ids for drop in stage.took(a.SendDrop)] == [[silent]]


def test_what_expired_in_the_queue_never_joins(stage, worker_id):
    for _ in range(3):
        stage.submit()
    late = stage.submit(deadline_s=0.1)
    stage.now += 0.2  # before any sweep

    end(stage, worker_id, stage.worker(worker_id).in_hand[0].jobs[0].job_id)

    assert [late] not in stage.sent()
    assert stage.refused == {late: "deadline_exceeded"}


def test_a_ticket_is_a_free_place(stage):
    """
    With job tickets nobody queues (8.6).
    """
    stage.serve(jobs_at_once=2, uses_job_tickets=True)

    accepted = [stage.submit(), stage.submit()]
    refused = stage.submit()

    assert [[job_id] for job_id in accepted] == stage.sent()
    assert stage.refused == {refused: "no_worker"}


def test_a_reply_for_what_was_not_given_costs_the_worker_its_life(stage, worker_id):
    job_id = stage.submit()
    end(stage, worker_id, job_id)

    stage.reply(worker_id, Reply(999, True, [job_id], PIECE))

    assert stage.signals(worker_id) == ["Kill"]


def test_a_worker_cannot_end_anothers_job(stage):
    one, other = stage.alive(stage.serve(jobs_at_once=3, workers=2))
    mine, others = stage.submit(), stage.submit()
    assert stage.sent(one) == [[mine]] or stage.sent(other) == [[mine]]
    holder = one if stage.sent(one) == [[mine]] else other

    stage.reply(holder, Reply(batch_of(stage, holder, mine), True, [others], PIECE))

    assert stage.refused == {mine: "bad_handler_result"}
    assert stage.engine.job_count == 1


def test_what_runs_is_counted(stage, worker_id):
    """
    `stoker_batch_size` of such a version: how many were in hand when one ended.
    """
    key = stage.engine.registry.find("echo", None).spec.key
    first, second = stage.submit(), stage.submit()

    end(stage, worker_id, first)
    end(stage, worker_id, second)

    tally = stage.served(key).pool.tally
    assert tally.sizes.total == 3
    assert sum(tally.sizes.counts) == 2


def test_the_autoscaler_sees_workers_and_not_their_requests(stage, worker_id):
    """
    Three requests at once for two seconds are two seconds of a worker, not six.
    """
    pool = stage.engine.registry.find("echo", None).pool
    job_ids = [stage.submit() for _ in range(3)]
    stage.advance(1.0)
    end(stage, worker_id, job_ids[0])
    assert pool.busy_s(stage.now) == pytest.approx(1.0)
    stage.advance(1.0)

    end(stage, worker_id, *job_ids[1:])
    stage.advance(5.0)

    assert pool.busy_s(stage.now) == pytest.approx(2.0)
    assert (pool.most_at_once, pool.delay_s) == (3, 0.0)


# -- whatever happens -----------------------------------------------------------


def worker_with(state: WorkerState, held: int, make_job, *, is_loner: bool = False) -> Worker:
    worker = Worker(1, 9000, None, 0.0)
    worker.state = state
    for number in range(held):
        job = make_job(flags=JobFlag.ALONE if is_loner else 0)
        worker.in_hand.append(Run(number, [job]))
    return worker


@pytest.mark.parametrize("state", list(WorkerState))
def test_only_workers_that_take_jobs_are_chosen(state, make_job):
    worker = worker_with(state, 0 if state is WorkerState.READY else 1, make_job)

    chosen = choose_roomiest([worker], 2)

    assert (chosen is worker) == (state in (WorkerState.READY, WorkerState.BUSY))


def test_nobody_joins_a_loner(make_job):
    worker = worker_with(WorkerState.BUSY, 1, make_job, is_loner=True)

    assert choose_roomiest([worker], 9) is None


class Lives(RuleBasedStateMachine):
    """Two workers of three places each, clients in a hurry, and any order of events."""

    @staticmethod
    def make_stage():  # set by the fixture below
        raise NotImplementedError

    def __init__(self):
        super().__init__()
        self.stage = type(self).make_stage()
        self.key = self.stage.serve(
            jobs_at_once=3, workers=2, max_attempts=2, response_timeout_s=5, queue_capacity=8
        )
        self.ends = {}
        self.streaming = {}

    # -- what the outside does

    @rule(alone=st.booleans(), deadline_s=st.sampled_from([0.2, 3.0, 60.0]), own=st.booleans())
    def submit(self, alone, deadline_s, own):
        flags = (JobFlag.ALONE if alone else 0) | (JobFlag.ENDS_IN_HAND if own else 0)
        self.ends[self.stage.submit(flags=flags, deadline_s=deadline_s)] = 0

    @precondition(lambda self: self.open())
    @rule(data=st.data())
    def cancel(self, data):
        job_id = data.draw(st.sampled_from(self.open()))
        self.ends[job_id] += 1
        self.stage.cancel(job_id)

    @rule(seconds=st.sampled_from([0.01, 0.3, 2.0, 6.0]))
    def wait(self, seconds):
        self.stage.advance(seconds)

    # -- what workers do

    def runs(self):
        alive = [self.stage.worker(w) for w in self.stage.alive(self.key)]
        return [(w.worker_id, run) for w in alive for run in w.in_hand]

    @precondition(lambda self: self.runs())
    @rule(data=st.data(), is_last=st.booleans())
    def reply(self, data, is_last):
        worker_id, run = data.draw(st.sampled_from(self.runs()))
        (job,) = run.jobs
        is_heard = self.stage.worker(worker_id).stalled_at is None
        if is_last and is_heard and not job.has_ended:
            self.ends[job.job_id] += 1
        elif is_heard and not job.has_ended:
            self.streaming.setdefault(job.job_id, self.retries(job.job_id))
        ended = [job.job_id] if is_last else []
        self.stage.reply(worker_id, Reply(run.batch_id, is_last, ended, PIECE))

    @rule(data=st.data(), words=st.sampled_from(["signal 11", "signal 9", "exit 1"]))
    def die(self, data, words):
        alive = self.stage.alive(self.key)
        if alive:
            self.stage.exit(data.draw(st.sampled_from(alive)), words)

    @rule()
    def load(self):
        for worker_id in self.stage.alive(self.key):
            if self.stage.worker(worker_id).state is WorkerState.STARTING:
                self.stage.load(worker_id)

    # -- what must hold

    def open(self):
        refused = self.stage.refused
        return [job_id for job_id, ends in self.ends.items() if not ends and job_id not in refused]

    def retries(self, job_id):
        return sum(action.job_id == job_id for action in self.stage.took(a.Retry))

    @invariant()
    def every_job_ends_once(self):
        refused = [action.job_id for action in self.stage.took(a.Refuse)]
        for job_id, ends in self.ends.items():
            assert ends + refused.count(job_id) <= 1
        assert self.stage.engine.job_count == len(self.open())

    @invariant()
    def no_hand_is_too_full_and_loners_are_alone(self):
        for worker_id in self.stage.alive(self.key):
            held = self.stage.worker(worker_id).in_hand
            assert len(held) <= 3
            assert len(held) <= 1 or not any(run.jobs[0].is_loner for run in held)
            assert sum(run.wants_to_be_alone for run in held) <= 1

    @invariant()
    def nobody_waits_while_there_is_room(self):
        pool = self.stage.served(self.key).pool
        workers = pool.workers.values()
        oldest = pool.queue.oldest()
        if oldest is None:
            return
        assert choose_empty(workers) is None
        if oldest.is_loner or oldest.is_suspect:
            # It holds up the others, but not for ever.
            assert oldest is pool._blocked
            if pool.due_at is not None:
                assert pool.due_at - self.stage.now <= PATIENCE_S
                return
        is_joining = oldest.is_suspect and not oldest.is_loner
        if is_joining or not all(job.is_loner or job.is_suspect for job in pool.queue):
            assert choose_roomiest(workers, 3) is None

    @invariant()
    def what_has_sent_pieces_is_never_tried_again(self):
        for job_id, retries in self.streaming.items():
            assert self.retries(job_id) == retries

    @invariant()
    def what_is_held_is_what_is_counted(self):
        pool = self.stage.served(self.key).pool
        held = [run.jobs[0] for _, run in self.runs()]
        suspects = [job for job in (*pool.queue, *held) if job.is_suspect and not job.has_ended]
        assert pool.recovery.suspects == len(suspects)
        assert pool.queue.ahead == 0


def test_whatever_happens_jobs_end_once_and_nobody_waits_for_nothing(make_stage):
    """
    Any order of clients, replies, deaths and time.
    """
    machine = type("Machine", (Lives,), {"make_stage": staticmethod(make_stage)})
    case = machine.TestCase()
    case.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
    case.runTest()
