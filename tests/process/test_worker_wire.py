"""The supervisor's socket for workers: who is not one, or lies, is dropped alone."""

from __future__ import annotations

import contextlib
import os
from random import Random
from typing import Any

import psutil
import pytest
from facts import wait_until
from lone_supervisor import LoneSupervisor
from stream_end import framed

from stoker.wire import codec
from stoker.wire import frames as f
from stoker.wire.connections import MAX_STRANGERS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "lie",
    [
        lambda pid: f.WorkerHello(f.PROTOCOL, 1, b"\x00" * 16, pid),
        lambda pid: f.WorkerHello(f.PROTOCOL, 999_999, b"\x00" * 16, pid),
        lambda pid: f.WorkerHello(f.PROTOCOL, 1, b"", os.getpid()),
    ],
    ids=["token", "number", "pid"],
)
def test_worker_that_we_did_not_start_is_refused(supervisor: LoneSupervisor, lie: Any) -> None:
    """
    The token proves that we started it; without it there is nothing to load and no work.
    """
    frontend = supervisor.frontend()
    pid = supervisor.register(frontend)
    impostor = supervisor.worker_peer()
    dropped = len(supervisor.logged("peer dropped"))

    impostor.send(codec.encode(lie(pid)))
    wait_until(lambda: len(supervisor.logged("peer dropped")) > dropped, "the peer is dropped")
    frontend.submit("real")

    assert frontend.answers()[0].body == b"real"
    assert impostor.has_heard_nothing()
    assert impostor.is_closed()


HELLO = codec.encode(f.WorkerHello(f.PROTOCOL, 1, b"\x00" * 16, os.getpid()))
RUBBISH_OF_A_WORKER = {
    "empty frame": framed(b""),
    "rubbish": framed(b"\xc1rubbish"),
    "hello of a frontend": framed(codec.encode(f.FrontendHello(f.PROTOCOL, 1))),
    "order": framed(codec.encode(f.Leave())),
    "no hello": framed(codec.encode(f.Loaded({}))),
    "oversized length": b"\xff\xff\xff\xff",
    "long hello": framed(bytes(5000)),
    "length of a long hello": b"\x00\x01\x00\x00",
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "bits flipped": bytes(byte ^ 0x55 for byte in framed(HELLO)),
    "two frames, the second bad": framed(HELLO) + framed(b"\xc1"),
}


@pytest.mark.parametrize("data", RUBBISH_OF_A_WORKER.values(), ids=RUBBISH_OF_A_WORKER.keys())
def test_rubbish_at_the_workers_socket_drops_its_sender_alone(
    supervisor: LoneSupervisor, data: bytes
) -> None:
    """
    A worker runs other people's code; what it sends is read with care.
    """
    frontend = supervisor.frontend()
    supervisor.register(frontend)
    dropped = len(supervisor.logged("peer dropped"))
    stranger = supervisor.worker_peer()

    stranger.send_raw(data)

    assert stranger.is_closed()
    wait_until(lambda: len(supervisor.logged("peer dropped")) > dropped, "it is logged")
    frontend.submit("real")
    assert frontend.answers()[0].body == b"real"


@pytest.mark.parametrize(
    "lie",
    [b"\xff\xff\xff\xff", framed(b"\xc1")],
    ids=["length", "frame"],
)
def test_worker_that_lies_is_replaced_and_nobody_else_notices(
    supervisor: LoneSupervisor, lie: bytes
) -> None:
    """
    User code can reach its worker's socket; it harms its own worker and nobody else.
    """
    frontend = supervisor.frontend()
    pid = supervisor.register(frontend)

    (job_id,) = frontend.submit("say " + lie.hex())
    (refused,) = frontend.expect(f.Refused).jobs
    frontend.submit("real")

    assert (refused.job_id, refused.code) == (job_id, "worker_died")
    assert frontend.answers()[0].body == b"real"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_random_bytes_at_the_workers_socket_are_survived(supervisor: LoneSupervisor) -> None:
    """
    Whatever stands there, cut off anywhere: an end, not an exception, not memory.
    """
    frontend = supervisor.frontend()
    supervisor.register(frontend)
    before = psutil.Process(supervisor.process.pid).memory_info().rss
    random = Random(7)

    for size in [1, 2, 3, 4, 5, 64, 4096, 100_000] * 4:
        stranger = supervisor.worker_peer()
        with contextlib.suppress(ConnectionError):
            stranger.send_raw(random.randbytes(size))
        stranger.close()
    for cut in range(1, len(framed(HELLO))):
        stranger = supervisor.worker_peer()
        stranger.send_raw(framed(HELLO)[:cut])
        stranger.close()

    assert frontend.call("health").value["is_healthy"] is True
    assert not supervisor.logged("event failed")
    assert psutil.Process(supervisor.process.pid).memory_info().rss - before < 32 << 20


@pytest.mark.usefixtures("many_descriptors")
def test_thousands_of_silent_connections_leave_room_for_workers(supervisor: LoneSupervisor) -> None:
    """
    Who says nothing keeps no place from a worker that has something to say.
    """
    frontend = supervisor.frontend()

    strangers = [supervisor.worker_peer() for _ in range(2000)]
    supervisor.register(frontend)

    assert supervisor.connection_count("worker.sock") <= MAX_STRANGERS + 2
    assert strangers[0].is_closed()
    frontend.submit("real")
    assert frontend.answers()[0].body == b"real"
