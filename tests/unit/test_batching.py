"""When a batch is worth sending, and what is in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.supervisor import batching
from stoker.supervisor.batching import BatchPolicy, is_full, ready_at, take_batch
from stoker.supervisor.jobs import Job
from stoker.supervisor.queues import JobQueue
from stoker.supervisor.specs import MAX_BATCH_SIZE
from stoker.wire import limits
from stoker.wire.frames import JOB_ID_BYTES, JobFlag

DESCRIBE = int(JobFlag.ALONE)


@pytest.fixture
def fill(make_job):
    def fill(*jobs: Job) -> JobQueue:
        queue = JobQueue(100)
        for job in jobs:
            queue.put(job)
        return queue

    return fill


def test_nothing_queued_is_never_due(fill):
    assert ready_at(fill(), BatchPolicy(4, 1.0)) is None
    assert not is_full(fill(), BatchPolicy(4, 1.0))


def test_the_delay_counts_from_the_arrival_of_the_first_job(fill, make_job):
    """
    The peer counts from the moment somebody looked, so a busy worker made it longer.
    """
    queue = fill(make_job(arrived_at=10.0), make_job(arrived_at=10.9))

    assert ready_at(queue, BatchPolicy(4, 1.0)) == 11.0


@pytest.mark.parametrize("policy", [BatchPolicy(1, 1.0), BatchPolicy(2, 1.0), BatchPolicy(4, 0.0)])
def test_a_full_batch_and_one_without_delay_are_due_at_once(fill, make_job, policy):
    queue = fill(make_job(arrived_at=10.0), make_job(arrived_at=10.0))

    assert ready_at(queue, policy) == 10.0


def test_a_describe_job_closes_the_batch_in_front_of_it(fill, make_job):
    policy = BatchPolicy(4, 1.0)
    queue = fill(make_job(arrived_at=10.0), make_job(flags=DESCRIBE))

    assert is_full(queue, policy)
    assert ready_at(queue, policy) == 10.0


def test_a_describe_job_travels_alone(fill, make_job):
    first, describe, last = make_job(), make_job(flags=DESCRIBE), make_job()
    queue, policy = fill(first, describe, last), BatchPolicy(4, 1.0)

    batches = [take_batch(queue, policy, 0.0).jobs for _ in range(3)]

    assert batches == [[first], [describe], [last]]


def test_an_expired_job_takes_no_place_in_a_batch(fill, make_job):
    expired, first, second = make_job(deadline=5.0), make_job(), make_job()

    taken = take_batch(fill(first, expired, second), BatchPolicy(2, 1.0), 5.0)

    assert taken == ([first, second], [expired])


def test_an_expired_describe_job_is_expired_and_not_sent(fill, make_job):
    expired, job = make_job(deadline=5.0, flags=DESCRIBE), make_job()

    taken = take_batch(fill(expired, job), BatchPolicy(2, 1.0), 5.0)

    assert taken == ([job], [expired])


JOBS = st.lists(st.tuples(st.integers(0, 10), st.sampled_from((0, 0, 0, DESCRIBE))), max_size=20)


@given(JOBS, st.integers(1, 6), st.integers(0, 10))
def test_batches_partition_the_queue_in_order(rows, max_size, now):
    """
    Every job leaves once, in order, in time, in batches of the right size.
    """
    queue = JobQueue(100)
    jobs = [Job(bytes([n]), b"", row[0], 0.0, n, row[1]) for n, row in enumerate(rows)]
    for job in jobs:
        queue.put(job)
    policy = BatchPolicy(max_size, 1.0)
    sent: list[Job] = []
    expired: list[Job] = []

    while len(queue):
        taken = take_batch(queue, policy, now)
        assert taken.jobs or taken.expired
        assert len(taken.jobs) <= max_size
        assert len(taken.jobs) == 1 or not any(job.is_loner for job in taken.jobs)
        sent += taken.jobs
        expired += taken.expired

    assert sent == [job for job in jobs if job.deadline > now]
    assert expired == [job for job in jobs if job.deadline <= now]


@given(JOBS, st.integers(1, 6))
def test_a_full_batch_would_not_grow_by_waiting(rows, max_size):
    """
    Full means: one more job behind it changes nothing in the next batch.
    """
    policy = BatchPolicy(max_size, 1.0)

    def next_batch(extra: int) -> tuple[bool, int]:
        queue = JobQueue(100)
        for number, (_, flags) in enumerate([*rows, *[(0, 0)] * extra]):
            queue.put(Job(bytes([number]), b"", 99.0, 0.0, number, flags))
        return is_full(queue, policy), len(take_batch(queue, policy, 0.0).jobs)

    was_full, size = next_batch(0)

    assert was_full == (bool(rows) and next_batch(1)[1] == size)


@given(st.lists(st.integers(0, 150), min_size=1, max_size=20), st.integers(1, 8))
def test_a_batch_is_never_larger_than_a_frame_and_never_empty(sizes, max_size):
    """
    A worker is told in one frame what a batch is; a huge one would be refused, with its worker.
    A request that is larger than that alone still goes, alone: other bounds are for it.
    """
    most_bytes = 100
    queue = JobQueue(100)
    waiting = [
        Job(number.to_bytes(16, "big"), bytes(size), 1e9, 0.0, number)
        for number, size in enumerate(sizes)
    ]
    for job in waiting:
        queue.put(job)

    batches = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "MAX_BATCH_BYTES", most_bytes)
        while len(queue):
            batches.append(take_batch(queue, BatchPolicy(max_size), 1.0).jobs)

    assert [job for batch in batches for job in batch] == waiting
    for batch in batches:
        assert 1 <= len(batch) <= max_size
        assert len(batch) == 1 or sum(len(job.payload) for job in batch) <= most_bytes


def test_the_bound_of_a_batch_fits_into_a_frame():
    """
    Beside the payloads of 4096 requests there are their ids, deadlines and lengths.
    """
    beside = MAX_BATCH_SIZE * (JOB_ID_BYTES + 9 + 2 * 5) + 100

    assert batching.MAX_BATCH_BYTES + beside <= limits.MAX_FRAME_BYTES
    assert 3 * limits.MAX_WORK_JOBS + 1000 <= limits.MAX_ELEMENTS
    assert limits.MAX_PAYLOAD_BYTES + beside <= limits.MAX_FRAME_BYTES
