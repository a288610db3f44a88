"""When a worker's replies leave: together while it is fast, at once when somebody would wait."""

from __future__ import annotations

import os
import resource
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from stream_end import StreamEnd

from stoker.wire import codec
from stoker.wire.frames import Kept, Reply, WorkBatch, WorkerBack, WorkJob
from stoker.wire.frames import Work as WorkMessage
from stoker.wire.payloads import unpack_answers
from stoker.worker import channel as channel_module
from stoker.worker import successor
from stoker.worker.answers import group_rows
from stoker.worker.channel import FAST_BATCH_S, HOLD_S, Channel

FAST_S = FAST_BATCH_S / 10
SLOW_S = FAST_BATCH_S * 5


class Stage:
    """A channel whose batches take as long as a test says."""

    def __init__(self, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{folder}/s")
            listener.listen(1)
            self.channel = Channel(f"unix:{folder}/s")
            self.supervisor = StreamEnd(listener.accept()[0])
        self.now = 1000.0
        self.interruptions = 0
        self._number = 0
        for module in (channel_module, successor):
            monkeypatch.setattr(module, "monotonic", lambda: self.now)
        monkeypatch.setattr(
            resource, "getrusage", lambda who: SimpleNamespace(ru_nivcsw=self.interruptions)
        )

    def give(self, count: int) -> None:
        batches = []
        for _ in range(count):
            self._number += 1
            job = WorkJob(b"frontend" + self._number.to_bytes(8, "big"), b"payload")
            batches.append(WorkBatch(self._number, [job]))
        self.supervisor.send(codec.encode(WorkMessage(batches)))

    def work(self, *took_s: float) -> None:
        for seconds in took_s:
            batch = self.channel.next_batch()
            assert batch is not None
            self.now += seconds
            self.channel.reply(Reply(batch.batch_id, True, [], []))

    def left(self) -> list[int]:
        """How many replies each message held that has left since the last call."""
        lots = []
        while not self.supervisor.has_heard_nothing():
            message = codec.decode_from_worker(self.supervisor.receive())
            lots.append(len(message.replies))  # type: ignore[union-attr]
        return lots

    def change_supervisor(self) -> list[bytes]:
        """The old one dies, another is found; the two messages by which it is greeted."""
        self.supervisor.close()
        self.channel.look()
        self.channel.orphan_grace_s = 60.0
        path = self.channel._address.removeprefix("unix:")
        os.unlink(path)
        said: list[bytes] = []

        def hear() -> None:
            self.supervisor = StreamEnd(listener.accept()[0])
            said.extend(self.supervisor.receive() for _ in range(2))

        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)
            hearing = threading.Thread(target=hear)
            hearing.start()
            self.channel.come_back()
            hearing.join()
        return said

    def become_fast(self) -> None:
        """It begins in doubt, and forgets slowly."""
        self.give(500)
        self.work(*[FAST_S] * 500)
        self.left()


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="stoker-", dir="/tmp") as folder:
        made = Stage(folder, monkeypatch)
        yield made
        made.channel.close()
        made.supervisor.close()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_replies_of_a_fast_handler_leave_together(stage: Stage) -> None:
    """
    To wake the supervisor costs more than a fast handler does.
    """
    stage.become_fast()
    stage.give(10)

    stage.work(*[FAST_S] * 10)

    assert stage.left() == [10]


def test_no_reply_is_held_for_longer_than_a_millisecond(stage: Stage) -> None:
    stage.become_fast()
    stage.give(100)

    stage.work(*[HOLD_S / 4.5] * 100)

    assert max(stage.left()) <= 6


def test_replies_of_a_slow_handler_leave_at_once(stage: Stage) -> None:
    """
    The next one may take as long again.
    """
    stage.become_fast()
    stage.give(6)

    stage.work(FAST_S, SLOW_S, SLOW_S, FAST_S, FAST_S, FAST_S)

    assert stage.left() == [2, 1, 1, 1, 1]


def test_interrupted_batch_does_not_make_a_handler_slow(stage: Stage) -> None:
    """
    On a busy machine each reply would leave alone, and keep it busier still.
    """
    stage.become_fast()
    stage.give(8)

    stage.work(FAST_S)
    stage.interruptions += 1
    stage.work(SLOW_S, *[FAST_S] * 6)

    assert stage.left() == [2, 6]


def test_handler_that_is_slow_and_interrupted_is_slow(stage: Stage) -> None:
    """
    Twice in a row is no chance.
    """
    stage.become_fast()
    stage.give(5)

    for _ in range(5):
        stage.interruptions += 1
        stage.work(SLOW_S)

    assert stage.left() == [2, 1, 1, 1]


def test_what_was_held_back_is_told_to_a_successor_as_answered(stage: Stage) -> None:
    """
    It did not give us those batches, and would take who answers them for a liar.
    """
    stage.become_fast()
    stage.give(3)
    stage.work(FAST_S)
    assert stage.left() == []

    said = stage.change_supervisor()
    stage.channel.flush()

    back, kept = map(codec.decode_from_worker, said)
    assert isinstance(back, WorkerBack)
    assert isinstance(kept, Kept)
    assert kept.replies[-1].batch_id == 501
    assert stage.supervisor.has_heard_nothing()


def test_what_was_lent_is_told_to_a_successor_in_full(stage: Stage) -> None:
    """
    The file went with the supervisor that died; what is kept is the answer itself.
    """
    body = bytes(range(256)) * 4096
    stage.give(1)
    batch = stage.channel.next_batch()
    assert batch is not None
    (job,) = batch.jobs
    row = [job.job_id, 0, 200, "", None, [], body]
    stage.channel.reply(Reply(batch.batch_id, True, [job.job_id], group_rows([row])))
    stage.supervisor.receive()
    assert len(stage.supervisor.handles) == 1

    said = stage.change_supervisor()

    kept = codec.decode_from_worker(said[1])
    assert isinstance(kept, Kept)
    frame = kept.replies[-1].groups[0].frame
    assert isinstance(frame, bytes)
    assert unpack_answers(frame)[0].body == body
