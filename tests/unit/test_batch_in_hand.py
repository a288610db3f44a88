"""What a handler's own threads may do with the batch in hand."""

from __future__ import annotations

import pytest

from stoker.wire.frames import WorkJob
from stoker.worker.in_hand import BatchInHand


class FakeChannel:
    def __init__(self):
        self.dropped = set()
        self.parts = []

    def look(self):
        pass

    def reply_part(self, reply):
        self.parts.append(reply)


JOBS = [WorkJob(bytes([i]) * 16, b"") for i in range(2)]
ROW = [JOBS[0].job_id, 1, 200, "", None, [], b"piece"]


def test_pieces_leave_while_the_batch_is_in_hand():
    channel = FakeChannel()
    in_hand = BatchInHand(channel, 120.0)
    in_hand.begin(7, JOBS)

    in_hand.send_rows([ROW])

    (reply,) = channel.parts
    assert (reply.batch_id, reply.is_last, reply.ended) == (7, False, [])


def test_pieces_after_the_batch_are_refused():
    """
    A thread that a handler forgot must not speak into the next batch.
    """
    channel = FakeChannel()
    in_hand = BatchInHand(channel, 120.0)
    in_hand.begin(7, JOBS)
    in_hand.end()

    with pytest.raises(RuntimeError, match="returned already"):
        in_hand.send_rows([ROW])

    assert not channel.parts
    assert not in_hand.is_cancelled()


def test_a_batch_is_cancelled_once_every_client_has_left():
    channel = FakeChannel()
    in_hand = BatchInHand(channel, 120.0)
    in_hand.begin(7, JOBS)

    channel.dropped = {JOBS[0].job_id}
    assert (in_hand.is_cancelled(0), in_hand.is_cancelled(1)) == (True, False)
    assert not in_hand.is_cancelled()

    channel.dropped = {job.job_id for job in JOBS}
    assert in_hand.is_cancelled()
