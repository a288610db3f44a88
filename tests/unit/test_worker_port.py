"""What one turn sends leaves in one frame, as far as it fits; what has gathered is told once."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop
from facts import wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stream_end import StreamEnd, framed

from stoker.clock import FakeClock, MonotonicClock
from stoker.supervisor.worker_port import WorkerPort
from stoker.wire import codec, limits, stream
from stoker.wire.connections import Connection
from stoker.wire.frames import (
    PROTOCOL,
    Drop,
    FromWorker,
    Replies,
    Reply,
    Work,
    WorkBatch,
    WorkerHello,
    WorkJob,
)

#: Stand in for a gigabyte, and for sixty-five thousand jobs.
WORK_BYTES = 1000
WORK_JOBS = 12
#: The number of the only one.
WORKER = 7


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def port(loop, monkeypatch) -> Iterator[WorkerPort]:
    monkeypatch.setattr(limits, "MAX_WORK_BYTES", WORK_BYTES)
    monkeypatch.setattr(limits, "MAX_WORK_JOBS", WORK_JOBS)
    with tempfile.TemporaryDirectory(prefix="stoker-", dir="/tmp") as folder:
        address = f"unix:{Path(folder) / 's'}"
        nothing = lambda *_: None  # noqa: E731
        port = WorkerPort(loop, FakeClock(), address, nothing, lambda: None, nothing, nothing)
        yield port
        port.close()


class Worker:
    """The other end of a connection, and what came through it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        ours, self._end = socket.socketpair()
        reader = stream.FrameReader(stream.new_buffer())
        self.connection = Connection(loop, ours, reader, None, lambda *_: None)
        self._reader = stream.FrameReader(stream.new_buffer())

    def frames(self) -> list[object]:
        found: list[object] = []
        try:
            while True:
                found += map(codec.decode_to_worker, self._reader.read(self._end))
        except BlockingIOError:
            return found

    def close(self) -> None:
        self.connection.close()
        self._end.close()


@pytest.fixture
def worker(loop, port) -> Iterator[Worker]:
    worker = Worker(loop)
    port.admit(worker.connection, WORKER)
    yield worker
    worker.close()


def batch(number: int, *sizes: int) -> WorkBatch:
    return WorkBatch(number, [WorkJob(bytes(16), bytes(size)) for size in sizes])


sizes = st.lists(st.integers(0, WORK_BYTES // 4), min_size=1, max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(sizes, min_size=1, max_size=30))
def test_no_frame_of_several_batches_is_larger_than_a_worker_takes(port, loop, several):
    """
    The worker would call it a lie and die, with everything that it holds.
    """
    worker = Worker(loop)
    port.admit(worker.connection, WORKER)
    given = [batch(number, *each) for number, each in enumerate(several)]
    for one in given:
        port.give(WORKER, one)

    port.flush()
    works = [frame for frame in worker.frames() if isinstance(frame, Work)]
    worker.close()

    assert [one for work in works for one in work.batches] == given
    for work in works:
        assert sum(len(job.payload) for one in work.batches for job in one.jobs) <= WORK_BYTES
        assert sum(len(one.jobs) for one in work.batches) <= WORK_JOBS


def test_what_fits_leaves_together(port, worker):
    """
    Waking a worker is dearer than what it then does.
    """
    for number in range(4):
        port.give(WORKER, batch(number, 100))

    port.flush()

    assert [len(frame.batches) for frame in worker.frames()] == [4]


def test_an_order_comes_behind_all_the_batches_that_were_given_before(port, worker):
    """
    Also when they need several frames.
    """
    for number in range(3):
        port.give(WORKER, batch(number, WORK_BYTES - 1))

    port.tell(WORKER, Drop([bytes(16)]))
    port.flush()

    assert [type(frame) for frame in worker.frames()] == [Work, Work, Work, Drop]


# -- what they say --------------------------------------------------------------------------


class Talking:
    """A port with its real door, workers behind it, and what the port was told."""

    def __init__(self, loop: asyncio.AbstractEventLoop, folder: str) -> None:
        self.loop = loop
        self.clock = MonotonicClock()
        self.heard: list[tuple[int | None, FromWorker]] = []
        self.liars: list[int] = []
        #: What the port said in what order.
        self.told: list[str] = []
        self.turns = 0
        self._path = f"{folder}/s"
        self.port = WorkerPort(
            loop,
            self.clock,
            f"unix:{self._path}",
            self._take,
            self._turn,
            lambda worker_id, _: self.told.append(f"lost {worker_id}"),
            self._note_liar,
        )

    def _turn(self) -> None:
        self.turns += 1

    def _note_liar(self, worker_id: int, reason: str) -> None:
        self.liars.append(worker_id)
        self.told.append(f"liar {worker_id}")

    def _take(self, connection: Connection, worker_id: int | None, message: FromWorker) -> None:
        if worker_id is None:
            assert isinstance(message, WorkerHello)
            self.port.admit(connection, message.worker_id)
        else:
            self.heard.append((worker_id, message))
            self.told.append(f"heard {worker_id}")

    def worker(self, worker_id: int) -> StreamEnd:
        end = StreamEnd.connect(self._path)
        end.send(codec.encode(WorkerHello(PROTOCOL, worker_id, b"", 1)))
        self.until(lambda: self.port.knows(worker_id))
        return end

    def turn(self) -> None:
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def until(self, fact: Callable[[], object]) -> None:
        end = time.monotonic() + 20.0
        while not fact():
            assert time.monotonic() < end
            self.turn()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop])
def talking(request: pytest.FixtureRequest) -> Iterator[Talking]:
    loop = request.param()
    with tempfile.TemporaryDirectory(prefix="stoker-", dir="/tmp") as folder:
        made = Talking(loop, folder)
        yield made
        made.port.close()
        made.port.close()
    loop.close()


def replies(*numbers: int) -> bytes:
    ended = [Reply(number, True, [bytes(16)], []) for number in numbers]
    return codec.encode(Replies(ended))


def numbers_in(message: FromWorker) -> list[int]:
    assert isinstance(message, Replies)
    return [reply.batch_id for reply in message.replies]


def test_what_has_gathered_is_told_together_and_then_there_is_a_turn(talking):
    """
    What it makes room for is decided once, with all of it known.
    """
    end = talking.worker(WORKER)
    talking.turn()  # the one that its hello was worth
    turns = talking.turns
    talking.port.let_gather(WORKER, 0.02)

    end.send_raw(b"".join(map(framed, (replies(1), replies(2, 3), replies(4)))))
    talking.until(lambda: talking.turns > turns)
    end.close()

    assert [numbers_in(message) for _, message in talking.heard] == [[1, 2, 3, 4]]
    assert talking.turns == turns + 1


def test_one_that_lied_while_nobody_listened_is_heard_up_to_its_lie(talking):
    end = talking.worker(WORKER)
    talking.port.let_gather(WORKER, 0.02)

    end.send_raw(b"".join(map(framed, (replies(1), replies(2), b"no message"))))
    talking.until(lambda: talking.liars)
    talking.until(lambda: talking.heard)

    assert [numbers_in(message) for _, message in talking.heard] == [[1, 2]]
    assert talking.told == [f"heard {WORKER}", f"liar {WORKER}"]
    assert end.is_closed()


def test_one_that_left_while_nobody_listened_answered_before_it_went(talking):
    """
    Else a worker that leaves as it was told would be taken for one that broke off.
    """
    end = talking.worker(WORKER)
    talking.port.let_gather(WORKER, 0.02)
    end.send(replies(1))
    end.send(replies(2))
    end.close()

    talking.until(lambda: len(talking.told) == 2)

    assert [numbers_in(message) for _, message in talking.heard] == [[1, 2]]
    assert talking.told == [f"heard {WORKER}", f"lost {WORKER}"]


def test_answers_gather_for_as_long_as_was_said_and_are_heard_at_once(talking):
    end, other = talking.worker(WORKER), talking.worker(WORKER + 1)
    began = time.monotonic()
    talking.port.let_gather(WORKER, 0.05)
    for number in range(5):
        end.send(replies(number))
    other.send(replies(100))

    talking.until(lambda: len(talking.heard) == 2)
    took_s = time.monotonic() - began
    end.send(replies(5))
    talking.until(lambda: len(talking.heard) == 3)
    end.close()
    other.close()

    assert took_s >= 0.05
    assert [(who, numbers_in(message)) for who, message in talking.heard] == [
        (WORKER + 1, [100]),
        (WORKER, [0, 1, 2, 3, 4]),
        (WORKER, [5]),
    ]


def test_whoever_is_due_is_heard_whatever_others_were_told(talking):
    """
    The one that is due first was told last.
    """
    ends = [talking.worker(WORKER + number) for number in range(3)]
    for number, for_s in enumerate((3600.0, 0.03, 0.000_001)):
        talking.port.let_gather(WORKER + number, for_s)
        talking.port.let_gather(WORKER + number, 3600.0)  # it is left alone already
        ends[number].send(replies(number))

    talking.until(lambda: len(talking.heard) == 2)
    for end in ends:
        end.close()

    assert {who - WORKER for who, _ in talking.heard} == {1, 2}


def test_a_message_that_brings_us_down_leaves_nobody_unheard(talking, monkeypatch):
    """
    One that is due at the same time would else never be listened to again.
    """
    ends = [talking.worker(WORKER + number) for number in range(2)]
    for number, end in enumerate(ends):
        talking.port.let_gather(WORKER + number, 0.02)
        end.send(replies(number))
    due_at = talking.clock.now() + 0.02
    wait_until(lambda: talking.clock.now() > due_at, "both are due")
    taken = talking.heard.append
    talking.port._on_message = lambda _, who, message: taken(
        (who, message) if who != WORKER else 1 / 0
    )

    talking.until(lambda: talking.heard)
    for end in ends:
        end.close()

    assert [who for who, _ in talking.heard] == [WORKER + 1]


def test_a_worker_that_dies_while_nobody_listens_is_heard_to_its_end(talking):
    end = talking.worker(WORKER)
    talking.port.let_gather(WORKER, 60.0)
    end.send(replies(1))
    end.send(replies(2))
    end.close()

    talking.port.part_with(WORKER)

    assert [n for _, message in talking.heard for n in numbers_in(message)] == [1, 2]
    talking.port.let_gather(WORKER, 1.0)  # of nobody
