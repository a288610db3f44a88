"""Frames on a Unix stream socket: the way between the supervisor and a worker.

     0        4                4 + length
    +--------+----------------+
    | length | frame          |    length: unsigned, big-endian, 1 ... MAX_FRAME_BYTES
    +--------+----------------+

`frames.py` draws what is in a frame.  Here are what both ends need and the
worker's end, which blocks; the supervisor's is in `connections.py`.

Why not zmq here too: a socket of the kernel's wakes its reader directly, while
zmq wakes a thread of its own on each side first; a peer's end is an EOF at
once; and a worker needs neither the library nor the thread.
"""

from __future__ import annotations

import array
import mmap
import os
import socket
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from stoker.errors import ProtocolError
from stoker.wire.lent_bodies import Handle
from stoker.wire.limits import MAX_FRAME_BYTES

#: What the kernel may hold on the way, if the system allows as much
#: (net.core.wmem_max): each time it is full costs two wake-ups.
IN_KERNEL_BYTES: Final = 1 << 20
#: What one look at a socket takes at most.
BUFFER_BYTES: Final = 256 << 10
#: Up to here a frame is copied behind its length: one plain send is cheaper than two pieces.
COPIED_BYTES: Final = 16 << 10
#: Room up to here is had at once; beyond, a length is only a claim, and the
#: kernel gives memory when the bytes come.
COMMITTED_BYTES: Final = 4 << 20
#: Open files that come along with one frame.
MAX_HANDLES: Final = 16
_LENGTH: Final = struct.Struct("!I")
LENGTH_BYTES: Final = _LENGTH.size
_TIMEVAL: Final = struct.Struct("@ll")
_NUMBER: Final = array.array("i").itemsize
_HANDLES_BYTES: Final = socket.CMSG_SPACE(MAX_HANDLES * _NUMBER)
_HANDLES_FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC


class PeerGone(ConnectionError):
    """The other end hung up, or takes nothing any more."""


class HasFileno(Protocol):
    def fileno(self) -> int: ...


def socket_path(address: str) -> str:
    """`unix:/path` -> `/path`.  Raises ValueError for other kinds of address."""
    scheme, _, path = address.partition(":")
    if scheme != "unix" or not os.path.isabs(path):
        raise ValueError(f"not the address of a Unix socket: {address}")
    return path


def new_buffer() -> memoryview:
    """Where a FrameReader receives; it takes memory as far as it is ever filled."""
    return _mapped(BUFFER_BYTES)


def widen(end: socket.socket) -> None:
    """Let the kernel hold more of what is sent from this end."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, IN_KERNEL_BYTES)


def pieces(frame: bytes) -> tuple[bytes, ...]:
    """What is to be sent for a frame: in one piece, or uncopied in two."""
    length = _LENGTH.pack(len(frame))
    return (length + frame,) if len(frame) <= COPIED_BYTES else (length, frame)


def ancillary(handles: Sequence[HasFileno]) -> list[tuple[int, int, array.array[int]]]:
    """What sends copies of open files along with a frame's first byte."""
    numbers = array.array("i", [handle.fileno() for handle in handles])
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)]


class FrameReader:
    """Cuts what arrives on one socket into frames.

    Args:
        buffer: From `new_buffer`; readers that are never used at the same
            time share one.

    Attributes:
        max_bytes: The largest frame that is accepted.
        takes_handles: Open files may come along; else the kernel closes them.
        handles: Those that came along with the frame in hand; whoever wants them takes them.
        is_full: The last `read` filled its room, so more may be there already.
    """

    __slots__ = (
        "_arrived",
        "_body",
        "_buffer",
        "_filled",
        "_head",
        "handles",
        "is_full",
        "max_bytes",
        "takes_handles",
    )

    def __init__(self, buffer: memoryview, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self.max_bytes = max_bytes
        self.is_full = False
        self.takes_handles = False
        self.handles: deque[Handle] = deque()
        #: Those that came with the latest look.
        self._arrived: deque[Handle] = deque()
        self._buffer = buffer
        #: The first bytes of a length of which the others have not come.
        self._head = b""
        #: A frame that has come in part, and how much of it.
        self._body: memoryview | None = None
        self._filled = 0

    def read(self, source: socket.socket) -> Iterator[memoryview]:
        """Receive once, without waiting; each whole frame is good until the next one.

        Raises:
            BlockingIOError: Nothing has arrived.
            PeerGone: The end of the stream.
            ProtocolError: A length that cannot be; nothing after it makes sense.
        """
        buffer = self._buffer
        body, head = self._body, self._head
        if body is not None and len(body) - self._filled >= len(buffer):
            # Straight to where it belongs.
            room = body[self._filled :]
            got = self._receive(source, room)
            self._refuse_arrived()
            self.is_full = got == len(room)
            self._filled += got
            if self.is_full:
                self._body = None
                yield body
            return
        at = 0
        if head:
            buffer[: len(head)] = head
            got = len(head) + self._receive(source, buffer[len(head) :])
            self._head = b""
        else:
            got = self._receive(source, buffer)
        self.is_full = got == len(buffer)
        if body is not None:
            at = min(len(body) - self._filled, got)
            body[self._filled : self._filled + at] = buffer[:at]
            self._filled += at
            if self._filled < len(body):
                self._refuse_arrived()
                return
            self._body = None
            yield body
        is_new = not head
        while got - at >= LENGTH_BYTES:
            length: int = _LENGTH.unpack_from(buffer, at)[0]
            if not 0 < length <= self.max_bytes:
                raise ProtocolError("a frame of impossible length")
            at += LENGTH_BYTES
            end = at + length
            if is_new and (self.handles or self._arrived):
                self._turn_to_next(is_last=end >= got)
            is_new = True
            if end > got:
                self._begin(length, buffer[at:got])
                return
            yield buffer[at:end]
            at = end
        if at < got:
            if is_new:
                self._turn_to_next(is_last=True)
            self._head = bytes(buffer[at:got])

    def _turn_to_next(self, *, is_last: bool) -> None:
        """Forget the files of the frame before: this one's came with the last look, or it has none.

        The kernel ends a look behind the bytes that files came along with, which
        are the first of a message of one frame: theirs is the last that has begun.
        """
        self.handles = deque()
        if is_last:
            self.handles, self._arrived = self._arrived, self.handles

    def _refuse_arrived(self) -> None:
        if self._arrived:
            raise ProtocolError("open files in the middle of a frame")

    def _receive(self, source: socket.socket, room: memoryview) -> int:
        try:
            if self.takes_handles:
                got = self._receive_with_handles(source, room)
            else:
                got = source.recv_into(room, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise
        except OSError as error:
            raise PeerGone(error.strerror) from None
        if not got:
            raise PeerGone("the connection was closed")
        return got

    def _receive_with_handles(self, source: socket.socket, room: memoryview) -> int:
        got, messages, _, _ = source.recvmsg_into((room,), _HANDLES_BYTES, _HANDLES_FLAGS)
        if self._arrived:
            self._arrived = deque()
        for level, kind, numbers in messages:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._arrived.extend(map(Handle, memoryview(numbers).cast("i")))
        # The first of them came if there was no descriptor free for all.
        return got

    def _begin(self, length: int, start: memoryview) -> None:
        try:
            body = memoryview(bytearray(length)) if length <= COMMITTED_BYTES else _mapped(length)
        except (MemoryError, OSError):
            raise ProtocolError("a frame for which there is no memory") from None
        body[: len(start)] = start
        self._body = body
        self._filled = len(start)


def _mapped(size: int) -> memoryview:
    return memoryview(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class Stream:
    """The end of whoever may wait: sending blocks, up to a deadline.

    Args:
        address: `unix:/path`.
        deadline_s: How long connecting may take, and a message that the other
            end does not read.

    Raises:
        PeerGone: Nobody listens there.
    """

    def __init__(self, address: str, deadline_s: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._reader = FrameReader(new_buffer())
        try:
            self.set_deadline(deadline_s)
            widen(self._socket)
            self._socket.connect(socket_path(address))
        except OSError as error:
            self._socket.close()
            raise PeerGone(error.strerror) from None

    def fileno(self) -> int:
        return self._socket.fileno()

    def set_deadline(self, deadline_s: float) -> None:
        # The kernel's own: with Python's a poll would go before each send.
        whole_s = int(deadline_s)
        timeval = _TIMEVAL.pack(whole_s, int((deadline_s - whole_s) * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)

    def send(self, frame: bytes, handles: Sequence[HasFileno] = ()) -> None:
        """Send it, with copies of open files.

        Raises:
            PeerGone: The other end is gone, or took nothing for so long.
        """
        parts = pieces(frame)
        try:
            # A handler may have given SIGPIPE back its deadly meaning.
            if handles:
                sent = self._socket.sendmsg(parts, ancillary(handles), socket.MSG_NOSIGNAL)
            elif len(parts) == 1:
                sent = self._socket.send(parts[0], socket.MSG_NOSIGNAL)
            else:
                sent = self._socket.sendmsg(parts, (), socket.MSG_NOSIGNAL)
            if sent >= len(frame) + LENGTH_BYTES:
                return
            for part in parts:
                rest = memoryview(part)[sent:]
                sent = max(0, sent - len(part))
                while rest:
                    rest = rest[self._socket.send(rest, socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            raise PeerGone("nobody reads at the other end") from None
        except OSError as error:
            raise PeerGone(error.strerror) from None

    def receive(self) -> Iterator[memoryview]:
        """What has arrived, without waiting; see `FrameReader.read`."""
        return self._reader.read(self._socket)

    @property
    def has_more(self) -> bool:
        """The last `receive` may have left something."""
        return self._reader.is_full

    def close(self) -> None:
        self._socket.close()
