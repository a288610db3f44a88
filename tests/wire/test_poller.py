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
from stoker.wire.poller import NOBLOCK, SocketReader

DEADLINE_S = 20.0
MESSAGES = 6000


@pytest.fixture
def address() -> Iterator[str]:
    # Short: the name of a Unix socket has room for 107 bytes.
    with tempfile.TemporaryDirectory(prefix="stoker-", dir="/tmp") as folder:
        yield f"ipc://{folder}/s"


class Echo(threading.Thread):
    """The other end: answers every message, sometimes at once, sometimes several together."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        super().__init__()
        self.socket = sockets.bind_router(context, address)
        self.socket.setsockopt(zmq.RCVTIMEO, int(DEADLINE_S * 1000))

    def run(self) -> None:
        random = Random(5)
        held: list[bytes] = []
        for left in range(MESSAGES, 0, -1):
            identity = self.socket.recv()
            held.append(self.socket.recv())
            # It never holds everything back that the other side waits for.
            if len(held) >= random.choice((1, 1, 1, 2, 3)) or left < 8:
                for body in held:
                    self.socket.send(identity, zmq.SNDMORE)
                    self.socket.send(body)
                held.clear()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_no_wake_up_is_lost_while_both_ends_send(address: str, new_loop: object) -> None:
    """
    Sending may eat the edge that announces a message; without a look
    afterwards that message would wait until another one comes.
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    echo = Echo(context, address)
    echo.start()
    loop = new_loop()  # type: ignore[operator]
    socket = sockets.connect_dealer(context, address, b"\x01dealer")
    done = loop.create_future()
    sent, received = 0, 0
    random = Random(6)

    def take() -> None:
        nonlocal received
        socket.recv(NOBLOCK)
        received += 1

    def on_burst() -> None:
        if received == MESSAGES:
            done.set_result(None)
        # Four are on the way at most, so that a lost wake-up stands still.
        loop.call_soon(send)

    def send() -> None:
        nonlocal sent
        room = 4 - (sent - received)
        for _ in range(min(room, random.choice((1, 1, 2, 4)), MESSAGES - sent)):
            socket.send(b"x", 0)
            sent += 1
        reader.check()
        if sent - received < 4 and sent < MESSAGES:
            loop.call_soon(send)

    reader = SocketReader(loop, socket, take, on_burst)
    loop.call_soon(send)
    try:
        loop.run_until_complete(asyncio.wait_for(done, DEADLINE_S))
    finally:
        reader.close()
        loop.close()
        echo.join()
        for end in (socket, echo.socket):
            end.close()
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
