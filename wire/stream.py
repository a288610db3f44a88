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

import mmap
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

from stoker.errors import ProtocolError
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
_LENGTH: Final = struct.Struct("!I")
LENGTH_BYTES: Final = _LENGTH.size
_TIMEVAL: Final = struct.Struct("@ll")


class PeerGone(ConnectionError):
    """The other end hung up, or takes nothing any more."""


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


class FrameReader:
    """Cuts what arrives on one socket into frames.

    Args:
        buffer: From `new_buffer`; readers that are never used at the same
            time share one.

    Attributes:
        max_bytes: The largest frame that is accepted.
        is_full: The last `read` filled its room, so more may be there already.
    """

    __slots__ = ("_body", "_buffer", "_filled", "_head", "is_full", "max_bytes")

    def __init__(self, buffer: memoryview, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self.max_bytes = max_bytes
        self.is_full = False
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
            got = _receive(source, room)
            self.is_full = got == len(room)
            self._filled += got
            if self.is_full:
                self._body = None
                yield body
            return
        at = 0
        if head:
            buffer[: len(head)] = head
            got = len(head) + _receive(source, buffer[len(head) :])
            self._head = b""
        else:
            got = _receive(source, buffer)
        self.is_full = got == len(buffer)
        if body is not None:
            at = min(len(body) - self._filled, got)
            body[self._filled : self._filled + at] = buffer[:at]
            self._filled += at
            if self._filled < len(body):
                return
            self._body = None
            yield body
        while got - at >= LENGTH_BYTES:
            length: int = _LENGTH.unpack_from(buffer, at)[0]
            if not 0 < length <= self.max_bytes:
                raise ProtocolError("a frame of impossible length")
            at += LENGTH_BYTES
            if length > got - at:
                self._begin(length, buffer[at:got])
                return
            yield buffer[at : at + length]
            at += length
        if at < got:
            self._head = bytes(buffer[at:got])

    def _begin(self, length: int, start: memoryview) -> None:
        try:
            body = memoryview(bytearray(length)) if length <= COMMITTED_BYTES else _mapped(length)
        except (MemoryError, OSError):
            raise ProtocolError("a frame for which there is no memory") from None
        body[: len(start)] = start
        self._body = body
        self._filled = len(start)


def _receive(source: socket.socket, room: memoryview) -> int:
    try:
        got = source.recv_into(room, 0, socket.MSG_DONTWAIT)
    except BlockingIOError:
        raise
    except OSError as error:
        raise PeerGone(error.strerror) from None
    if not got:
        raise PeerGone("the connection was closed")
    return got


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

    def send(self, frame: bytes) -> None:
        """Raises PeerGone: the other end is gone, or took nothing for so long."""
        parts = pieces(frame)
        try:
            # A handler may have given SIGPIPE back its deadly meaning.
            if len(parts) == 1:
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
