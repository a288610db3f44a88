"""Frames on a Unix stream: cut anywhere, of any size, from peers of any honesty."""

from __future__ import annotations

import os
import resource
import select
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from open_descriptors import open_descriptors
from stream_end import StreamEnd, framed

from stoker.errors import ProtocolError
from stoker.wire import stream
from stoker.wire.lent_bodies import Handle
from stoker.wire.stream import FrameReader, PeerGone, Stream, new_buffer, socket_path

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.settimeout(20)
    yield ours, theirs
    ours.close()
    theirs.close()


def read_all(reader: FrameReader, source: socket.socket) -> list[bytes]:
    """Frames until nothing is left."""
    frames = []
    try:
        while True:
            frames += [bytes(frame) for frame in reader.read(source)]
    except BlockingIOError:
        return frames


@settings(max_examples=60, deadline=None)
@given(
    frames=st.lists(st.binary(min_size=1, max_size=400), min_size=1, max_size=12),
    cuts=st.lists(st.integers(min_value=1, max_value=300), max_size=40),
)
def test_frames_arrive_whole_wherever_the_stream_is_cut(
    frames: list[bytes], cuts: list[int]
) -> None:
    """
    A stream has no borders: a length may come byte by byte, ten frames at once.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        # Smaller than a frame, so that all three ways of reading are taken.
        reader = FrameReader(memoryview(bytearray(64)))
        data = b"".join(map(framed, frames))
        received: list[bytes] = []

        for cut in [*cuts, len(data)]:
            ours.sendall(data[:cut])
            data = data[cut:]
            received += read_all(reader, theirs)

    assert received == frames


def test_readers_share_a_buffer_without_mixing_their_streams(pair: Pair) -> None:
    """
    A supervisor of a thousand workers has one buffer, and half a frame of each.
    """
    buffer = memoryview(bytearray(64))
    other_ours, other_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with other_ours, other_theirs:
        ours, theirs = pair
        one, other = FrameReader(buffer), FrameReader(buffer)
        first, second = os.urandom(50), os.urandom(50)

        for cut in range(0, 54, 3):
            ours.sendall(framed(first)[cut : cut + 3])
            got = read_all(one, theirs)
            other_ours.sendall(framed(second)[cut : cut + 3])
            other_got = read_all(other, other_theirs)

    assert (got, other_got) == ([first], [second])


@pytest.mark.parametrize("size", [stream.BUFFER_BYTES * 3, stream.COMMITTED_BYTES + 1])
def test_large_frames_pass(pair: Pair, size: int) -> None:
    ours, theirs = pair
    reader = FrameReader(new_buffer())
    body = os.urandom(size)
    sender = threading.Thread(target=ours.sendall, args=(framed(body) + framed(b"next"),))
    sender.start()

    received: list[bytes] = []
    while len(received) < 2:
        assert select.select([theirs], [], [], 20)[0]
        received += read_all(reader, theirs)
    sender.join()

    assert received == [body, b"next"]


@pytest.mark.parametrize("length", [b"\0\0\0\0", b"\0\0\0\x65", b"\xff\xff\xff\xff"])
def test_impossible_length_is_refused_after_what_was_well(pair: Pair, length: bytes) -> None:
    """
    What came before it still counts; of what follows nobody knows where it begins.
    """
    ours, theirs = pair
    reader = FrameReader(new_buffer(), max_bytes=100)
    ours.sendall(framed(b"good") + length + b"more")

    frames = reader.read(theirs)

    assert bytes(next(frames)) == b"good"
    with pytest.raises(ProtocolError):
        next(frames)


def test_claimed_length_takes_no_memory(pair: Pair) -> None:
    """
    A gigabyte that is only announced must not cost one.
    """
    ours, theirs = pair
    reader = FrameReader(new_buffer())
    before = resident_bytes()

    ours.sendall((1 << 30).to_bytes(4, "big") + b"only this")

    assert read_all(reader, theirs) == []
    assert resident_bytes() - before < 32 << 20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("said", [b"", b"\0\0", framed(b"cut off")[:-2]])
def test_end_of_the_stream_is_told_at_once(pair: Pair, said: bytes) -> None:
    ours, theirs = pair
    reader = FrameReader(new_buffer())
    ours.sendall(said)
    ours.close()

    if said:
        assert list(reader.read(theirs)) == []
    with pytest.raises(PeerGone):
        next(reader.read(theirs))


def test_full_buffer_is_told(pair: Pair) -> None:
    """
    So that one look need not be two.
    """
    ours, theirs = pair
    reader = FrameReader(memoryview(bytearray(32)))

    ours.sendall(framed(bytes(8)))
    list(reader.read(theirs))
    was_full = reader.is_full
    ours.sendall(framed(bytes(8)) * 3)
    list(reader.read(theirs))

    assert (was_full, reader.is_full) == (False, True)


# -- the end that blocks ----------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    # A short name: that of a Unix socket has room for 107 bytes.
    with (
        tempfile.TemporaryDirectory(prefix="stoker-", dir="/tmp") as folder,
        socket.socket(socket.AF_UNIX) as listening,
    ):
        listening.bind(f"{folder}/s")
        listening.listen(1)
        listening.settimeout(20)
        yield listening


def address(listener: socket.socket) -> str:
    return f"unix:{listener.getsockname()}"


@pytest.mark.parametrize("size", [1, stream.COPIED_BYTES, stream.COPIED_BYTES + 1, 3 << 20])
def test_what_one_end_sends_the_other_receives(listener: socket.socket, size: int) -> None:
    end = Stream(address(listener), 20)
    other = StreamEnd(listener.accept()[0])
    frame = os.urandom(size)
    sender = threading.Thread(target=end.send, args=(frame,))
    sender.start()

    received = other.receive()
    sender.join()

    assert received == frame
    end.close()
    other.close()


def test_reader_that_never_reads_is_given_up(listener: socket.socket) -> None:
    """
    A wait without a deadline would keep a worker for ever.
    """
    end = Stream(address(listener), 0.1)
    other = listener.accept()[0]

    with pytest.raises(PeerGone, match="nobody reads"):
        end.send(bytes(8 << 20))

    end.close()
    other.close()


def test_peer_that_left_is_told_when_sending(listener: socket.socket) -> None:
    end = Stream(address(listener), 20)
    listener.accept()[0].close()

    with pytest.raises(PeerGone):
        end.send(b"anybody?")

    end.close()


def test_nobody_at_the_address_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(PeerGone):
        Stream(f"unix:{tmp_path}/nobody", 20)


@pytest.mark.parametrize("text", ["ipc:///x", "unix:x", "tcp://h:1", "", "unix:"])
def test_only_unix_sockets_have_a_path(text: str) -> None:
    """
    Another kind of link will have another kind of address.
    """
    with pytest.raises(ValueError, match="not the address"):
        socket_path(text)


# -- open files that come along --------------------------------------------------------


def taking(buffer: memoryview | None = None) -> FrameReader:
    reader = FrameReader(buffer or new_buffer())
    reader.takes_handles = True
    return reader


def pipe_with(content: bytes) -> int:
    """The reading end of a pipe; whoever has it can tell which it is."""
    ours, theirs = os.pipe()
    os.write(theirs, content)
    os.close(theirs)
    return ours


def send_with(source: socket.socket, frame: bytes, *contents: bytes) -> None:
    pipes = [pipe_with(content) for content in contents]
    StreamEnd(source).send(frame, *pipes)
    for fd in pipes:
        os.close(fd)


def taken(reader: FrameReader) -> list[bytes]:
    """What is in the files that came, each of which is closed."""
    contents = []
    while reader.handles:
        handle = reader.handles.popleft()
        contents.append(os.read(handle.fileno(), 100))
        handle.close()
    return contents


@pytest.mark.parametrize("size", [1, 60, 70, 200, 5000])
@pytest.mark.parametrize("room", [16, 64, 1 << 18])
def test_open_files_come_with_their_frame(pair: Pair, size: int, room: int) -> None:
    """
    Between frames with none, and however often one has to look before a frame is whole.
    """
    ours, theirs = pair
    reader = taking(memoryview(bytearray(room)))
    expected = []
    for number in range(6):
        contents = [b"%d-%d" % (number, at) for at in range(number % 3)]
        send_with(ours, bytes([number]) * size, *contents)
        expected.append((bytes([number]) * size, contents))

    received = []
    while len(received) < len(expected):
        for frame in reader.read(theirs):
            wanted = len(expected[len(received)][1])
            received.append((bytes(frame), taken(reader) if wanted else []))

    assert received == expected


def test_files_that_a_frame_did_not_take_are_not_given_to_a_later_one(pair: Pair) -> None:
    """
    An answer would be read from another one's file.
    """
    ours, theirs = pair
    reader = taking()
    before = open_descriptors()
    send_with(ours, b"says nothing of it", b"stray")
    send_with(ours, b"next", b"its own")
    StreamEnd(ours).send(b"has none")

    found = []
    while len(found) < 3:
        for frame in reader.read(theirs):
            found.append((bytes(frame), taken(reader) if frame == b"next" else []))

    assert found[1] == (b"next", [b"its own"])
    assert not reader.handles
    assert open_descriptors() == before


def test_files_in_the_middle_of_a_frame_are_a_lie(pair: Pair) -> None:
    ours, theirs = pair
    for room in (64, 1 << 18):
        reader = taking(memoryview(bytearray(room)))
        ours.send(framed(bytes(200))[:100])
        assert read_all(reader, theirs) == []
        fd = pipe_with(b"x")
        socket.send_fds(ours, [bytes(40)], [fd])
        os.close(fd)

        with pytest.raises(ProtocolError):
            list(reader.read(theirs))


def read_all_until(reader: FrameReader, source: socket.socket, count: int) -> list[bytes]:
    frames: list[bytes] = []
    while len(frames) < count:
        frames += [bytes(frame) for frame in reader.read(source)]
    return frames


def test_who_takes_no_files_is_left_with_none(pair: Pair) -> None:
    """
    A stranger could else have us hold any number of them.
    """
    ours, theirs = pair
    reader = FrameReader(new_buffer())
    before = open_descriptors()
    send_with(ours, b"frame", b"unwanted")

    assert read_all(reader, theirs) == [b"frame"]

    assert open_descriptors() == before


def test_more_files_than_a_message_may_have_do_not_come(pair: Pair) -> None:
    ours, theirs = pair
    reader = taking()
    before = open_descriptors()
    send_with(ours, b"frame", *[b"x"] * (stream.MAX_HANDLES + 2))

    assert read_all_until(reader, theirs, 1) == [b"frame"]

    assert len(reader.handles) <= stream.MAX_HANDLES + 1  # the kernel rounds up
    del reader
    assert open_descriptors() == before


def test_a_frame_comes_without_the_files_for_which_no_descriptor_is_free(pair: Pair) -> None:
    """
    The kernel drops them silently; those of the next frame are not taken for them.
    """
    ours, theirs = pair
    reader = taking()
    send_with(ours, b"frame", b"first", b"lost", b"lost, too")
    send_with(ours, b"next", b"its own")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)

    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, limits[1]))
    try:
        (frame,) = (bytes(frame) for frame in reader.read(theirs))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert (frame, taken(reader)) == (b"frame", [b"first"])
    assert read_all_until(reader, theirs, 1) == [b"next"]
    assert taken(reader) == [b"its own"]


def test_a_blocking_end_sends_files_along(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="stoker-", dir="/tmp") as folder:
        path = f"{folder}/s"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            sender = Stream(f"unix:{path}", 20.0)
            accepted = listener.accept()[0]
    with accepted:
        reader = taking()
        handle = Handle(pipe_with(b"content"))
        large = os.urandom(stream.COPIED_BYTES + 1)

        sender.send(b"small", [handle])
        sender.send(large, [handle])
        handle.close()

        for frame in (b"small", large):
            assert read_all_until(reader, accepted, 1) == [frame]
            assert len(reader.handles) == 1
            reader.handles.popleft().close()
        sender.close()
