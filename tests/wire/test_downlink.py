"""The way back of a frontend: in order, to its end, from whoever is there."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop
from open_descriptors import open_descriptors
from stream_end import StreamEnd, framed

from stoker.wire import codec
from stoker.wire.downlink import Downlink
from stoker.wire.frames import PROTOCOL, FrontendListens

ID = b"\x01frontnd"
DEADLINE_S = 20.0


@pytest.fixture
def path() -> Iterator[Path]:
    # Short: the name of a Unix socket has room for 107 bytes.
    with tempfile.TemporaryDirectory(prefix="stoker-", dir="/tmp") as folder:
        yield Path(folder) / "s"


class Door:
    """Where a supervisor lets frontends in."""

    def __init__(self, path: Path, backlog: int = 8) -> None:
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(backlog)

    def let_in(self) -> StreamEnd:
        self._listener.settimeout(DEADLINE_S)
        return StreamEnd(self._listener.accept()[0])

    def close(self) -> None:
        self._listener.close()


class Hearer:
    """A Downlink and what came by it."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.heard: list[bytes] = []
        self.losses = 0
        self.take: Callable[[bytes], None] = self.heard.append
        self._changed = asyncio.Event()
        self.downlink = Downlink(loop, f"unix:{path}", ID, self._take, self._lose)

    def _take(self, frame: memoryview, handles: codec.Handles) -> None:
        self._changed.set()
        self.take(bytes(frame))

    def _lose(self) -> None:
        self._changed.set()
        self.losses += 1

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Hearer, StreamEnd]]:
    """On the running loop, with the supervisor's end."""
    door = Door(path)
    hearer = Hearer(path, asyncio.get_running_loop())
    assert hearer.downlink.open()
    end = door.let_in()
    assert codec.decode_from_listener(end.receive()) == FrontendListens(PROTOCOL, ID)
    try:
        yield hearer, end
    finally:
        hearer.downlink.close()
        end.close()
        door.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_all_that_was_said_is_heard_before_the_end(path: Path, run: Callable[..., object]) -> None:
    """
    A supervisor that dies has answered whatever it had sent: the kernel keeps it.
    """

    async def hear() -> None:
        with opened(path) as (hearer, end):
            end.send_raw(framed(b"one") + framed(b"two") + framed(b"x" * 100_000))
            end.close()
            await hearer.until(lambda: hearer.losses > 0)

            assert hearer.heard == [b"one", b"two", b"x" * 100_000]
            assert not hearer.downlink.is_open

    run(hear())


def test_successor_is_heard_from_its_first_byte(path: Path) -> None:
    """
    Half a frame of the predecessor's is no part of what the successor says.
    """

    async def hear() -> None:
        with opened(path) as (hearer, end):
            end.send_raw(framed(b"never whole")[:-3])
            end.close()
            await hearer.until(lambda: hearer.losses > 0)
            door = Door(path)

            assert hearer.downlink.open()
            successor = door.let_in()
            successor.receive()
            successor.send(b"new")
            await hearer.until(lambda: bool(hearer.heard))

            assert hearer.heard == [b"new"]
            successor.close()
            door.close()

    asyncio.run(hear())


def test_nobody_there_is_no_error(path: Path) -> None:
    """
    Not yet, or not any more: whoever knocks comes again.
    """

    async def knock() -> None:
        hearer = Hearer(path, asyncio.get_running_loop())
        assert not hearer.downlink.open()
        Door(path).close()
        assert not hearer.downlink.open()
        assert not hearer.downlink.is_open
        assert hearer.losses == 0

    asyncio.run(knock())


def test_supervisor_that_lets_nobody_in_is_not_waited_for(path: Path) -> None:
    """
    A stopped one: its backlog fills, and a connect that waits would stop a frontend, too.
    """

    async def knock() -> None:
        door = Door(path, backlog=0)
        waiting = []
        with contextlib.suppress(BlockingIOError):
            for _ in range(100):
                end = socket.socket(socket.AF_UNIX)
                waiting.append(end)
                end.setblocking(False)
                end.connect(str(path))
        hearer = Hearer(path, asyncio.get_running_loop())

        assert not hearer.downlink.open()

        for each in waiting:
            each.close()
        door.close()

    asyncio.run(knock())


def test_bug_in_one_answer_keeps_no_other_back(path: Path) -> None:
    """
    What came in one piece with it is for other clients.
    """

    async def hear() -> None:
        reported: list[object] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, problem: reported.append(problem["exception"])
        )
        with opened(path) as (hearer, end):

            def take(frame: bytes) -> None:
                hearer.heard.append(frame)
                if frame == b"bad":
                    raise ValueError("a bug")

            hearer.take = take
            end.send_raw(framed(b"bad") + framed(b"good"))
            await hearer.until(lambda: b"good" in hearer.heard)

        assert [str(error) for error in reported] == ["a bug"]

    asyncio.run(hear())


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\0"])
def test_what_is_no_frame_ends_it(path: Path, data: bytes) -> None:
    """
    Nothing behind it would make sense; the supervisor is asked anew.
    """

    async def hear() -> None:
        with opened(path) as (hearer, end):
            end.send_raw(data + framed(b"behind it"))
            await hearer.until(lambda: hearer.losses > 0)

            assert hearer.heard == []
            assert end.is_closed()

    asyncio.run(hear())


def test_who_closes_it_over_an_answer_hears_no_more(path: Path) -> None:
    """
    A frontend that stops has ended what it had pending.
    """

    async def hear() -> None:
        with opened(path) as (hearer, end):

            def take(frame: bytes) -> None:
                hearer.heard.append(frame)
                hearer.downlink.close()

            hearer.take = take
            end.send_raw(framed(b"last") + framed(b"behind it"))
            await hearer.until(lambda: bool(hearer.heard))
            assert end.is_closed()

            assert hearer.heard == [b"last"]
            assert hearer.losses == 0

    asyncio.run(hear())


def test_opening_leaves_nothing_open_when_it_fails(path: Path) -> None:
    """
    It is tried fifty times a second while a supervisor is away.
    """

    async def knock() -> None:
        hearer = Hearer(path, asyncio.get_running_loop())
        before = open_descriptors()
        for _ in range(20):
            assert not hearer.downlink.open()
        assert open_descriptors() == before

    asyncio.run(knock())
