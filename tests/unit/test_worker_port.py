"""What one turn sends to one worker leaves in one frame, as far as it fits into one."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.clock import FakeClock
from stoker.supervisor.worker_port import WorkerPort
from stoker.wire import codec, limits, stream
from stoker.wire.connections import Connection
from stoker.wire.frames import Drop, Work, WorkBatch, WorkJob

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
