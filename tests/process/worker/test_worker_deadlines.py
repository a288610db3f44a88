"""What a worker and its handler know of time and of clients that have left."""

from __future__ import annotations

import time

import pytest

from stoker.wire import frames as f

#: Says what it knows, or does what the body asks for.
KNOWS = """
import sys, time

def handle(data, context):
    if data is None:
        return None
    first = bytes(data[0]["body"])
    if first == b"until cancelled":
        print("in hand", file=sys.stderr)
        while not context.cancelled:
            pass
    print("handling", [bytes(row["body"]).decode() for row in data], file=sys.stderr)
    left = context.deadline - time.monotonic()
    return [f"{left:.3f}"] * len(data)
"""


@pytest.fixture
def batch(make_request, make_job_id):
    """A Work of one batch: bodies, and by when each is wanted."""

    def make(number: int, *jobs: tuple[bytes, float | None]) -> f.Work:
        deadlines = [deadline for _, deadline in jobs]
        return f.Work(
            [
                f.WorkBatch(
                    number,
                    [
                        f.WorkJob(make_job_id(10 * number + i), make_request(body))
                        for i, (body, _) in enumerate(jobs)
                    ],
                    None if deadlines == [None] * len(jobs) else deadlines,
                )
            ]
        )

    return make


def test_what_nobody_waits_for_any_more_is_not_handled(serve, batch):
    """
    It was sent ahead and its time passed behind a slow batch; its neighbours are answered.
    """
    peer = serve(KNOWS)
    now = time.monotonic()

    peer.send(batch(1, (b"late", now - 1.0), (b"early", now + 60.0), (b"patient", None)))
    answered = peer.answered()

    assert answered.error_code(10) == "deadline_exceeded"
    assert answered.one(11).body == answered.one(12).body
    assert len(answered.replies[-1].ended) == 3
    assert "handling ['early', 'patient']" in peer.output()[1]


def test_the_handler_knows_the_clients_deadline(serve, batch):
    """
    The last of them, as long as one client waits the batch is worth something.
    """
    peer = serve(KNOWS, response_timeout_s=100.0)
    now = time.monotonic()

    peer.send(batch(1, (b"a", now + 5.0), (b"b", now + 20.0)))

    assert 15.0 < float(peer.answered().one(10).body) <= 20.0


@pytest.mark.parametrize("own_s", [None, 1000.0])
def test_without_one_the_deadline_is_that_of_its_worker(serve, batch, own_s):
    """
    After response_timeout the worker is given up, whatever clients wait for.
    """
    peer = serve(KNOWS, response_timeout_s=100.0)
    deadline = None if own_s is None else time.monotonic() + own_s

    peer.send(batch(1, (b"a", deadline), (b"b", None)))

    assert 95.0 < float(peer.answered().one(10).body) <= 100.0


def test_a_handler_notices_that_its_batch_is_given_up(serve, batch, make_job_id):
    """
    Whoever watches over workers says so before there are signals.
    """
    peer = serve(KNOWS)
    peer.send(batch(1, (b"until cancelled", None), (b"b", None)))
    peer.wait_output("in hand")

    peer.send(f.Drop([make_job_id(10), make_job_id(11)]))

    assert peer.answered().replies[-1].is_last


def test_a_request_that_was_given_up_may_be_tried_again_here(
    serve, make_request, make_job_id, batch
):
    """
    Split from a batch that hung, it comes back to the same worker, and is wanted.
    """
    peer = serve(KNOWS)
    peer.send(f.Work([batch(1, (b"until cancelled", None)).batches[0], *batch(2, (b"b", None))[0]]))
    peer.wait_output("in hand")
    given_up = make_job_id(10)
    peer.send(f.Drop([given_up]))

    peer.send(f.Work([f.WorkBatch(3, [f.WorkJob(given_up, make_request(b"again"))])]))

    assert peer.answered().replies[-1].batch_id == 1
    assert peer.answered().replies[-1].batch_id == 2
    assert peer.answered().one(10).status == 200
    assert "handling ['again']" in peer.output()[1]


def test_a_handler_that_may_not_see_a_request_twice_hands_in_each_reply_first(serve, batch):
    """
    Else a worker that dies has begun what the supervisor takes for waiting.
    """
    peer = serve(KNOWS, is_idempotent=False)
    work = [batch(number, (b"x", None)).batches[0] for number in range(1, 33)]

    peer.send(f.Work(work))

    messages = 0
    while messages < len(work):
        replies = peer.receive().replies
        assert len(replies) == 1
        messages += 1
