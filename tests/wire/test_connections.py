"""The supervisor's end of the workers' stream: bounded, whoever is at the other end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stream_end import StreamEnd, framed

from stoker.clock import FakeClock
from stoker.errors import ProtocolError
from stoker.wire import connections
from stoker.wire.connections import HELLO_DEADLINE_S, Acceptor, Connection
from stoker.wire.lent_bodies import Handle
from stoker.wire.stream import FrameReader, new_buffer

DEADLINE_S = 20.0


class Host:
    """An acceptor on a loop that turns as long as a test wants."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "worker.sock"
        self.clock = FakeClock()
        self.loop = asyncio.new_event_loop()
        self.taken: list[tuple[Connection, bytes]] = []
        self.lost: list[tuple[Connection, str]] = []
        self.liars: list[tuple[Connection, str]] = []
        self.turns = 0
        self.acceptor = Acceptor(
            self.loop,
            self.clock,
            f"unix:{self.path}",
            self._take,
            self._turn,
            lambda *lost: self.lost.append(lost),
            lambda *liar: self.liars.append(liar),
        )
        self._ends: list[StreamEnd] = []

    def _take(self, connection: Connection, frame: memoryview) -> None:
        if frame == b"bad":
            raise ProtocolError("bad")
        if frame == b"hello":
            self.acceptor.admit(connection)
        self.taken.append((connection, bytes(frame)))

    def _turn(self) -> None:
        self.turns += 1

    def turn(self) -> None:
        """Everything that is due, once."""
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def until(self, fact: Callable[[], object]) -> None:
        until = time.monotonic() + DEADLINE_S
        while not fact():
            assert time.monotonic() < until
            self.turn()

    def connect(self) -> StreamEnd:
        end = StreamEnd.connect(str(self.path))
        self._ends.append(end)
        return end

    def admitted(self) -> tuple[StreamEnd, Connection]:
        end = self.connect()
        end.send(b"hello")
        known = len(self.taken)
        self.until(lambda: len(self.taken) > known)
        return end, self.taken[-1][0]

    @property
    def frames(self) -> list[bytes]:
        return [frame for _, frame in self.taken]

    def close(self) -> None:
        for end in self._ends:
            end.close()
        self.acceptor.close()
        self.loop.close()


@pytest.fixture
def host() -> Iterator[Host]:
    # Short: the name of a Unix socket has room for 107 bytes.
    with tempfile.TemporaryDirectory(prefix="stoker-", dir="/tmp") as folder:
        running = Host(Path(folder))
        yield running
        running.close()


# -- who is let in ----------------------------------------------------------------------


def test_socket_is_ours_alone_and_goes_with_its_owner(host: Host) -> None:
    """
    The folder is closed already; the file does not rely on it.
    """
    mode = host.path.stat().st_mode & 0o777
    inheritable = host.acceptor._socket.get_inheritable()

    host.acceptor.close()

    assert (mode, inheritable) == (0o600, False)
    assert not host.path.exists()


def test_path_of_a_dead_predecessor_is_taken_over(host: Host) -> None:
    """
    A supervisor that was killed leaves its socket's file behind.
    """
    stale = host.path.with_name("stale")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))

    second = Acceptor(host.loop, host.clock, f"unix:{stale}", host._take, host._turn, print, print)

    StreamEnd.connect(str(stale)).close()
    second.close()


def test_kernel_says_who_connected(host: Host) -> None:
    """
    A process may claim any pid; the kernel knows.
    """
    _, connection = host.admitted()

    assert connection.peer_pid == os.getpid()


def test_stranger_may_say_one_short_thing(host: Host) -> None:
    """
    Only who is known may claim a gigabyte.
    """
    stranger = host.connect()

    stranger.send_raw((connections.MAX_HELLO_BYTES + 1).to_bytes(4, "big"))
    host.until(lambda: host.liars)

    assert stranger.is_closed()


def test_worker_may_say_much_right_behind_its_hello(host: Host) -> None:
    """
    Both may arrive at once; the bound of a stranger is over by then.
    """
    long = os.urandom(50_000)
    end = host.connect()
    end.send_raw(framed(b"hello") + framed(long))

    host.until(lambda: len(host.taken) == 2)

    assert host.frames == [b"hello", long]


def test_silent_connections_are_closed_after_a_while(host: Host) -> None:
    silent, (_, known) = host.connect(), host.admitted()
    host.clock.advance(HELLO_DEADLINE_S - 0.1)
    host.acceptor.sweep(host.clock.now())
    was_early = silent.has_heard_nothing()

    host.clock.advance(0.2)
    host.acceptor.sweep(host.clock.now())

    assert was_early
    assert silent.is_closed()
    assert known.is_open
    assert not host.lost  # nobody's


def test_only_a_few_strangers_are_kept(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Thousands of connections cost a few descriptors, and keep nobody out who says hello.
    """
    monkeypatch.setattr(connections, "MAX_STRANGERS", 20)
    known_end, known = host.admitted()
    strangers = []
    for _ in range(8):
        strangers += [host.connect() for _ in range(20)]
        host.turn()
        host.turn()

    late_end, late = host.admitted()

    assert len(host.acceptor._connections) == 20 + 2
    assert strangers[0].is_closed()
    known_end.send(b"one")
    late_end.send(b"two")
    host.until(lambda: len(host.taken) == 4)
    assert {late, known} == {connection for connection, _ in host.taken}


def test_want_of_descriptors_is_a_pause_and_not_a_loop(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A listening socket that cannot be accepted from stays readable for ever.
    """
    monkeypatch.setattr(connections, "ACCEPT_PAUSE_S", 0.01)
    attempts = []

    class Exhausted:
        def __init__(self, listener: socket.socket) -> None:
            self.listener = listener

        def accept(self) -> tuple[socket.socket, object]:
            attempts.append(1)
            if len(attempts) < 3:
                raise OSError(errno.EMFILE, "Too many open files")
            return self.listener.accept()

        def fileno(self) -> int:
            return self.listener.fileno()

        def close(self) -> None:
            self.listener.close()

    monkeypatch.setattr(host.acceptor, "_socket", Exhausted(host.acceptor._socket))

    host.admitted()

    assert host.frames == [b"hello"]
    assert len(attempts) == 4  # the last of a burst finds nobody


# -- what they say ----------------------------------------------------------------------


def test_burst_is_one_turn(host: Host) -> None:
    """
    What is decided once for ten messages is decided with all of them known.
    """
    end, _ = host.admitted()
    host.turn()
    turns = host.turns

    end.send_raw(b"".join(framed(b"%d" % i) for i in range(10)))
    host.until(lambda: len(host.taken) == 11)

    assert host.turns == turns + 1


def test_what_a_paused_one_says_gathers_until_it_is_resumed(host: Host) -> None:
    end, connection = host.admitted()
    other, _ = host.admitted()
    host.acceptor.pause(connection)
    for number in range(3):
        end.send(b"%d" % number)
    other.send(b"meanwhile")
    host.until(lambda: b"meanwhile" in host.frames)
    host.turn()
    before, turns = host.frames[2:], host.turns

    host.acceptor.resume(connection)

    assert before == [b"meanwhile"]
    assert host.turns == turns
    assert host.frames[3:] == [b"0", b"1", b"2"]
    end.send(b"then")
    host.until(lambda: b"then" in host.frames)


def test_all_that_has_gathered_is_taken_however_many_looks_it_takes(host: Host) -> None:
    """
    Whoever is told of a part pauses it again at once, and the rest lies for another while.
    """
    end, connection = host.admitted()
    connection.reader.takes_handles = True
    host.acceptor.pause(connection)
    for number in range(4):  # a look ends at each message with a file
        with tempfile.TemporaryFile() as file:
            end.send(b"%d" % number, file.fileno())

    host.acceptor.resume(connection)

    assert host.frames[1:] == [b"0", b"1", b"2", b"3"]


def test_a_paused_one_can_be_drained_and_dropped(host: Host) -> None:
    """
    A worker dies while nobody listens to it; resuming what is closed does nothing.
    """
    end, connection = host.admitted()
    host.acceptor.pause(connection)
    end.send(b"last words")
    end.close()

    host.acceptor.drain(connection)

    assert host.frames[1:] == [b"last words"]
    assert host.lost == [(connection, "the connection was closed")]
    host.acceptor.resume(connection)
    host.acceptor.pause(connection)
    assert not connection.is_open


def test_several_that_speak_at_once_are_one_turn(host: Host) -> None:
    """
    Their answers leave in one message to a frontend, not in one each.
    """
    ends = [host.admitted()[0] for _ in range(4)]
    host.turn()
    turns = host.turns

    for end in ends:
        end.send(b"answer")
    host.until(lambda: len(host.taken) == 8)
    host.turn()

    assert host.turns == turns + 1


def test_one_that_speaks_alone_is_not_kept_waiting(host: Host) -> None:
    end, _ = host.admitted()
    for _ in range(2):
        end.send(b"answer")
        known = len(host.taken)
        host.until(lambda: len(host.taken) > known)  # noqa: B023

    turns = host.turns
    end.send(b"answer")
    host.until(lambda: len(host.taken) == 4)

    assert host.turns == turns + 1


def test_bad_frame_ends_its_connection_after_what_was_well(host: Host) -> None:
    end, connection = host.admitted()

    end.send_raw(framed(b"good") + framed(b"bad") + framed(b"never seen"))
    host.until(lambda: host.liars)

    assert host.frames == [b"hello", b"good"]
    assert host.liars == [(connection, "bad")]
    assert end.is_closed()
    assert not host.lost


@pytest.mark.parametrize("rest", [b"", b"\0\0", framed(b"cut off")[:-1]])
def test_peer_that_left_is_lost_at_once_and_heard_out(host: Host, rest: bytes) -> None:
    """
    Everything a worker answered before it died is taken; half an answer is none.
    """
    end, connection = host.admitted()

    end.send_raw(framed(b"last words") + rest)
    end.close()
    host.until(lambda: host.lost)

    assert host.frames == [b"hello", b"last words"]
    assert [lost for lost, _ in host.lost] == [connection]
    assert not connection.is_open
    assert not host.liars


def test_drain_takes_what_is_there_without_waiting_for_the_loop(host: Host) -> None:
    """
    The end of a process may be heard of before its last answer is.
    """
    end, connection = host.admitted()
    answers = [os.urandom(5_000) for _ in range(4)]
    for answer in answers:
        end.send(answer)

    host.acceptor.drain(connection)

    assert host.frames == [b"hello", *answers]
    assert connection.is_open


# -- what they are told -----------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 20_000])
def test_what_fits_leaves_at_once_and_is_forgotten(host: Host, size: int) -> None:
    """
    Waiting for a socket to become writable costs three system calls.
    """
    end, connection = host.admitted()

    connection.send(bytes(size))

    assert end.receive() == bytes(size)
    assert not host.loop.remove_writer(connection._fd)


@pytest.mark.parametrize("size", [1, 100_000, 5 << 20])
def test_everything_sent_arrives_in_order(host: Host, size: int) -> None:
    """
    Also what a peer that is busy reads long after it was sent.
    """
    end, connection = host.admitted()
    sent = [os.urandom(size), b"small", os.urandom(size), b"last"]
    for frame in sent:
        assert connection.send(frame)

    received: list[bytes] = []
    data = bytearray()
    while len(received) < len(sent):
        host.turn()
        if select.select([end.socket], [], [], 0)[0]:
            data += end.socket.recv(1 << 20)
        while len(data) >= 4 and len(data) >= 4 + int.from_bytes(data[:4], "big"):
            length = int.from_bytes(data[:4], "big")
            received.append(bytes(data[4 : 4 + length]))
            del data[: 4 + length]

    assert received == sent
    assert not host.lost


@pytest.mark.parametrize("size", [1, 20_000, 300_000])
def test_open_files_go_along_with_their_frame_alone(host: Host, size: int) -> None:
    """
    Also where the peer is busy, and frames with and without them have to wait.
    """
    end, connection = host.admitted()
    reader = FrameReader(new_buffer())
    reader.takes_handles = True
    files = [os.memfd_create(f"{number}") for number in range(20)]
    sent = []
    for number in range(200):
        its_files = files[number % 20 : number % 20 + number % 3]
        sent.append((b"%d " % number + bytes(size), [os.fstat(fd).st_ino for fd in its_files]))
        assert connection.send(sent[-1][0], [Handle(os.dup(fd)) for fd in its_files])

    received = []
    while len(received) < len(sent):
        host.turn()
        with contextlib.suppress(BlockingIOError):
            for frame in reader.read(end.socket):
                inodes = [os.fstat(handle.fileno()).st_ino for handle in reader.handles]
                received.append((bytes(frame), inodes))

    assert received == sent
    for fd in files:
        os.close(fd)


@pytest.mark.parametrize("is_admitted", [True, False])
def test_only_who_is_let_in_to_lend_may_send_open_files(host: Host, is_admitted: bool) -> None:
    """
    Frontends lend nothing, and strangers must not have us hold descriptors.
    """
    end, connection = host.admitted()
    connection.reader.takes_handles = is_admitted
    seen: list[int] = []
    take = host.acceptor._take
    host.acceptor._take = lambda *said: (seen.append(len(connection.reader.handles)), take(*said))
    ours, theirs = os.pipe()

    end.send(b"frame", ours, theirs)
    host.until(lambda: seen)

    assert seen == [2 if is_admitted else 0]
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("bound", ["MAX_WAITING_FRAMES", "MAX_WAITING_BYTES"])
def test_peer_that_never_reads_is_lost_at_a_bound(
    host: Host, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    """
    A stuck worker must not take the supervisor's memory; what it says still counts.
    """
    monkeypatch.setattr(connections, bound, 100 if bound == "MAX_WAITING_FRAMES" else 1 << 20)
    end, connection = host.admitted()

    sent = 0
    while connection.send(bytes(10_000)):
        sent += 1
        assert sent < 1000

    assert host.lost == [(connection, "it does not read")]
    assert not connection.send(b"more")
    assert len(host.lost) == 1
    end.send(b"I live")
    host.until(lambda: len(host.taken) == 2)
    assert host.frames == [b"hello", b"I live"]


def test_first_frame_to_a_busy_peer_is_taken_whatever_its_size(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The bound is for what piles up, not for one large batch.
    """
    monkeypatch.setattr(connections, "MAX_WAITING_BYTES", 1 << 20)
    _, connection = host.admitted()

    assert connection.send(bytes(3 << 20))


def test_peer_that_died_with_answers_on_the_way_is_heard_when_sending_fails(host: Host) -> None:
    """
    To send is to learn of the end first; what it said before must not be lost with it.
    """
    end, connection = host.admitted()
    end.send(b"answer")
    end.close()

    is_sent = connection.send(b"more work")
    host.until(lambda: not connection.is_open)

    assert not is_sent
    assert host.frames == [b"hello", b"answer"]
    assert {lost for lost, _ in host.lost} == {connection}


def test_dropped_connection_is_closed_quietly_and_once(host: Host) -> None:
    end, connection = host.admitted()
    connection.send(bytes(1 << 20))

    host.acceptor.drop(connection)
    host.acceptor.drop(connection)
    host.turn()

    assert end.is_closed()
    assert not connection.send(b"gone")
    assert not host.lost
