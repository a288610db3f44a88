"""No room on the disk, in shared memory or in the table of descriptors; a clock that jumps.

What cannot be done then is refused with a type; what was accepted ends; and as
soon as there is room again, everything goes on without a restart.  Limits of a
running process stand in for a full machine: RLIMIT_FSIZE of nothing makes every
write to a file fail, also to the log and into shared memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import resource
from collections.abc import Iterator

import psutil
import pytest
from facts import wait_until
from live_server import Answer, RawConnection, Server

pytestmark = pytest.mark.slow

LARGE = bytes(300_000)


@contextlib.contextmanager
def limited(process: psutil.Process, kind: int, soft: int) -> Iterator[None]:
    before, hard = resource.prlimit(process.pid, kind)
    resource.prlimit(process.pid, kind, (soft, hard))
    try:
        yield
    finally:
        resource.prlimit(process.pid, kind, (before, hard))


def without_descriptors(process: psutil.Process) -> contextlib.AbstractContextManager[None]:
    """
    It opens nothing more, and keeps what is open.  The limit is for the *number* of a new
    descriptor.  One made to measure, like the lowest number that is free, would leave room
    as soon as the process closes what it had open for a moment while it was measured; below
    three nothing is ever free.
    """
    assert {"0", "1", "2"} <= set(os.listdir(f"/proc/{process.pid}/fd"))
    return limited(process, resource.RLIMIT_NOFILE, 3)


def told(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def test_a_full_disk_refuses_what_must_be_written_and_serves_the_rest(server: Server):
    """
    A registration that cannot be kept is refused and has not happened; models
    that are there go on answering, and writing works again when there is room.
    """
    server.register("stays", "echo:handle")

    with limited(server.supervisor, resource.RLIMIT_FSIZE, 0):
        refused = server.manage("POST", "/models", model_name="late", handler="echo:handle")
        answers = [server.predict("stays", b"served") for _ in range(20)]
        listed = server.manage("GET", "/models").json["models"]

    assert refused.status >= 500
    assert refused.json["type"]
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"served")] * 20
    assert [model["modelName"] for model in listed] == ["stays"]
    server.register("late", "echo:handle")
    assert server.predict("late", b"now").body == b"now"


def test_full_shared_memory_makes_large_bodies_slower_and_nothing_else(server: Server):
    """
    Bodies that find no room there travel inline.
    """
    server.register("digests", "digest:handle")

    with limited(server.frontend, resource.RLIMIT_FSIZE, 0):
        answers = [server.predict("digests", LARGE) for _ in range(5)]

    assert all(answer.status == 200 for answer in answers), answers[0]
    assert all(answer.body.endswith(told(LARGE)) for answer in answers)


def test_without_descriptors_clients_that_are_in_are_served_and_others_later(server: Server):
    """
    No loop spins or ends because accept() fails.  Who comes meanwhile waits or
    is hung up on before a request was read, and gets in as soon as there are
    descriptors again.
    """
    server.register("echo", "echo:handle")
    frontend = server.frontend
    with server.connect() as inside:
        inside.send(b"POST /predictions/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi")
        assert inside.read_answer().body == b"hi"

        with without_descriptors(frontend):
            outside = server.later(server.predict, "echo", b"outside")
            before_s = sum(frontend.cpu_times()[:2])
            for _ in range(50):
                inside.send(
                    b"POST /predictions/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi"
                )
                assert inside.read_answer().body == b"hi"
            used_s = sum(frontend.cpu_times()[:2]) - before_s

        with contextlib.suppress(OSError, http.client.HTTPException):
            assert outside.answer().body == b"outside"
        assert server.predict("echo", b"later").body == b"later"
    assert used_s < 1.0
    assert server.frontend.pid == frontend.pid


@pytest.mark.parametrize("who", ["frontend", "supervisor"])
def test_a_large_answer_for_which_there_is_no_descriptor_is_an_error_of_its_own(
    server: Server, who: str
) -> None:
    """
    It comes in an open file.  Where that cannot be taken, its request ends and may be tried
    again; those beside it are answered.
    """
    server.register("echo", "echo:handle")
    large = b"x" * (300 << 10)
    process = getattr(server, who)
    head = "POST /predictions/echo HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n"

    with server.connect() as first, server.connect() as second:

        def ask(connection: RawConnection, body: bytes) -> Answer:
            connection.send((head % len(body)).encode() + body)
            return connection.read_answer()

        assert ask(first, large).body == ask(second, large).body == large
        with without_descriptors(process):
            refused = ask(first, large)
            beside = [ask(second, b"small") for _ in range(20)]
        assert ask(second, large).body == large

    assert refused.status == 503
    assert "ask again" in refused.text
    assert server.logged("large answers lost")
    assert [answer.body for answer in beside] == [b"small"] * 20
    assert getattr(server, who).pid == process.pid


def test_a_supervisor_without_descriptors_keeps_its_workers_and_gets_new_ones_later(
    server: Server,
):
    """
    A worker that cannot be started is tried again, and nobody else notices.
    """
    server.register("echo", "echo:handle")
    supervisor = server.supervisor

    with without_descriptors(supervisor):
        asked = server.manage("PUT", "/models/echo", min_worker=3, max_worker=3)
        answers = [server.predict("echo", b"served") for _ in range(20)]

    assert asked.status == 202
    assert [answer.status for answer in answers] == [200] * 20
    wait_until(
        lambda: [worker["status"] for worker in server.workers("echo")] == ["READY"] * 3,
        lambda: f"three workers: {server.workers('echo')}",
    )
    assert server.supervisor.pid == supervisor.pid
