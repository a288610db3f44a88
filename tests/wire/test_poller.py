"""No message waits for the next one: the edges of zmq's descriptor, under fire."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Iterator
from random import Random

import pytest
import uvloop
import zmq

from stoker.wire import poller, sockets
from stoker.wire.poller import SocketReader
from stoker.wire.sockets import NOBLOCK

DEADLINE_S = 20.0
MESSAGES = 6000


@pytest.fixture
def address() -> Iterator[str]:
    # Short: the name of a Unix socket has room for 107 bytes.
    with tempfile.TemporaryDirectory(prefix="stoker-", dir="/tmp") as folder:
        yield f"ipc://{folder}/s"


class Sender(threading.Thread):
    """The other end: four messages are on the way at most, so that a lost wake-up stands still."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        super().__init__()
        self.room = threading.Semaphore(4)
        self._socket = sockets.connect_dealer(context, address, b"\x01dealer")

    def run(self) -> None:
        random = Random(5)
        left = MESSAGES
        while left:
            burst = min(left, random.choice((1, 1, 1, 2, 3)))
            for _ in range(burst):
                if not self.room.acquire(timeout=DEADLINE_S):
                    left = burst
                    break
                self._socket.send(b"x")
            left -= burst
        self._socket.close(int(DEADLINE_S * 1000))


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_no_wake_up_is_lost(address: str, new_loop: object) -> None:
    """
    A look may eat the edge that announces a message; without another one that
    message would wait until the next comes, which here it never does.
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    ours = sockets.bind_router(context, address)
    loop = new_loop()  # type: ignore[operator]
    done = loop.create_future()
    received = 0
    sender = Sender(context, address)

    def take() -> None:
        nonlocal received
        ours.recv(NOBLOCK)
        ours.recv(NOBLOCK)
        received += 1
        sender.room.release()

    def on_burst() -> None:
        if received == MESSAGES:
            done.set_result(None)

    reader = SocketReader(loop, ours, take, on_burst)
    sender.start()
    try:
        loop.run_until_complete(asyncio.wait_for(done, DEADLINE_S))
    finally:
        reader.close()
        loop.close()
        ours.close()
        sender.join()
        context.term()

    assert received == MESSAGES


def test_burst_beyond_the_limit_gives_others_a_turn(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A flood at one socket must not keep the loop to itself; nor lose its rest.
    """
    monkeypatch.setattr(poller, "DRAIN_LIMIT", 10)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    ours = sockets.bind_router(context, address)
    theirs = sockets.connect_dealer(context, address, b"\x01dealer")
    for _ in range(25):
        theirs.send(b"x")
    loop = asyncio.new_event_loop()
    bursts: list[int] = []
    received = 0

    def take() -> None:
        nonlocal received
        ours.recv(NOBLOCK)
        ours.recv(NOBLOCK)
        received += 1

    def on_burst() -> None:
        bursts.append(received)
        if received == 25:
            loop.stop()

    reader = SocketReader(loop, ours, take, on_burst)
    loop.call_later(DEADLINE_S, loop.stop)
    loop.run_forever()

    assert bursts[-1] == 25
    assert max(b - a for a, b in zip([0, *bursts], bursts, strict=False)) <= 10
    reader.close()
    loop.close()
    for socket in (ours, theirs):
        socket.close()
    context.term()


def test_bug_in_a_message_does_not_silence_the_socket(address: str) -> None:
    """
    The exception is the loop's to report; what came behind it is still taken.
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    ours = sockets.bind_router(context, address)
    theirs = sockets.connect_dealer(context, address, b"\x01dealer")
    loop = asyncio.new_event_loop()
    reported: list[object] = []
    loop.set_exception_handler(lambda _loop, problem: reported.append(problem["exception"]))
    taken: list[bytes] = []

    def take() -> None:
        ours.recv(NOBLOCK)
        taken.append(ours.recv(NOBLOCK))
        if taken == [b"bad"]:
            raise ValueError("a bug")
        if taken[-1] == b"good":
            loop.stop()

    reader = SocketReader(loop, ours, take)
    theirs.send(b"bad")
    theirs.send(b"good")
    loop.call_later(DEADLINE_S, loop.stop)
    loop.run_forever()

    assert taken == [b"bad", b"good"]
    assert [str(error) for error in reported] == ["a bug"]
    reader.close()
    loop.close()
    for socket in (ours, theirs):
        socket.close()
    context.term()
