"""The queue: first in, first out, bounded, cheap to leave."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stoker.supervisor.jobs import Job
from stoker.supervisor.queues import JobQueue
from stoker.wire.frames import JobFlag


def test_jobs_leave_in_the_order_they_came(make_job):
    queue = JobQueue(10)
    jobs = [make_job() for _ in range(5)]
    for job in jobs:
        queue.put(job)

    assert [queue.take() for _ in range(5)] == jobs


def test_taking_from_an_empty_queue_is_an_error_of_the_caller():
    with pytest.raises(KeyError):
        JobQueue(1).take()


def test_there_is_room_until_the_capacity_is_pending(make_job):
    queue = JobQueue(2)
    queue.put(make_job())
    assert queue.room == 1

    queue.put(make_job())

    assert queue.room == 0
    assert queue.pending == 2


def test_jobs_sent_ahead_keep_their_room(make_job):
    """
    They may come back; then the queue must not exceed its bound.
    """
    queue = JobQueue(1)
    queue.put(make_job())

    queue.take()
    queue.ahead += 1

    assert queue.room == 0


def test_what_is_given_back_goes_where_it_was(make_job):
    queue = JobQueue(10)
    first, second, third = make_job(), make_job(), make_job()
    queue.put(third)

    queue.put_back([second, first])

    assert list(queue) == [first, second, third]


def test_what_two_workers_give_back_is_in_order_of_arrival(make_job):
    """
    The later ones may come back first.
    """
    queue = JobQueue(10)
    jobs = [make_job() for _ in range(5)]
    queue.put(jobs[4])

    queue.put_back([jobs[0], jobs[2]])
    queue.put_back([jobs[1], jobs[3]])

    assert list(queue) == jobs


def test_a_cancelled_job_is_gone_and_the_others_stay(make_job):
    queue = JobQueue(10)
    first, second = make_job(), make_job()
    queue.put(first)
    queue.put(second)

    assert queue.remove(first.job_id) is first
    assert queue.remove(first.job_id) is None
    assert list(queue) == [second]


def test_a_job_has_expired_at_its_deadline(make_job):
    """
    Nobody wants the answer *after* it; at it there is no time left to work.
    """
    queue = JobQueue(10)
    on_time, just_over = make_job(deadline=5.001), make_job(deadline=5.0)
    queue.put(on_time)
    queue.put(just_over)

    assert queue.take_expired(5.0) == [just_over]
    assert list(queue) == [on_time]


class QueueLife(RuleBasedStateMachine):
    """The queue against a sorted list."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = JobQueue(12)
        self.waiting: list[Job] = []
        self.out: list[list[Job]] = []
        self.number = 0

    @precondition(lambda self: self.queue.room > 0)
    @rule(deadline=st.integers(0, 20), flags=st.sampled_from((0, 0, 0, int(JobFlag.ALONE))))
    def put(self, deadline: int, flags: int) -> None:
        self.number += 1
        job = Job(self.number.to_bytes(16, "big"), b"", deadline, 0.0, self.number, flags)
        self.queue.put(job)
        self.waiting.append(job)

    @rule(count=st.integers(1, 4))
    def send_ahead(self, count: int) -> None:
        jobs = [self.queue.take() for _ in range(min(count, len(self.queue)))]
        assert jobs == self.waiting[: len(jobs)]
        del self.waiting[: len(jobs)]
        self.queue.ahead += len(jobs)
        self.out.append(jobs)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        jobs = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        self.queue.ahead -= len(jobs)
        self.queue.put_back(jobs)
        self.waiting = sorted([*self.waiting, *jobs], key=lambda job: job.sequence)

    @precondition(lambda self: self.out)
    @rule()
    def start(self) -> None:
        self.queue.ahead -= len(self.out.pop(0))

    @rule(number=st.integers(0, 40))
    def cancel(self, number: int) -> None:
        job = self.queue.remove(number.to_bytes(16, "big"))
        assert (job is not None) == any(x.sequence == number for x in self.waiting)
        self.waiting = [x for x in self.waiting if x is not job]

    @rule(now=st.integers(0, 20))
    def expire(self, now: int) -> None:
        expired = self.queue.take_expired(now)
        assert expired == [job for job in self.waiting if job.deadline <= now]
        self.waiting = [job for job in self.waiting if job.deadline > now]

    @rule()
    def flush(self) -> None:
        assert self.queue.take_all() == self.waiting
        self.waiting = []

    @invariant()
    def agrees(self) -> None:
        assert list(self.queue) == self.waiting
        assert len(self.queue) == len(self.waiting)
        assert self.queue.oldest() is (self.waiting[0] if self.waiting else None)
        assert self.queue.loners == sum(job.is_loner for job in self.waiting)
        assert self.queue.pending == len(self.waiting) + sum(map(len, self.out))
        assert self.queue.pending <= self.queue.capacity


QueueLife.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_the_queue_is_a_sorted_list_with_a_bound = QueueLife.TestCase
