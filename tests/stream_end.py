"""One end of the wire between supervisor and worker, played by a test: blocking, by hand."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import deque

from facts import DEADLINE_S

from stoker.wire.lent_bodies import Handle

LENGTH = struct.Struct("!I")
DESCRIPTOR = struct.Struct("@i")
MAX_DESCRIPTORS = 64


def framed(frame: bytes) -> bytes:
    return LENGTH.pack(len(frame)) + frame


class StreamEnd:
    """Knows the format by itself, so that it notices when ours changes.

    Attributes:
        handles: Open files that came along with what was received.
    """

    def __init__(self, connected: socket.socket) -> None:
        self.handles: deque[Handle] = deque()
        self.socket = connected
        self.socket.settimeout(DEADLINE_S)

    @classmethod
    def connect(cls, path: str) -> StreamEnd:
        # Blocking: with a timeout a full backlog is an error at once.
        connected = socket.socket(socket.AF_UNIX)
        try:
            connected.connect(path)
        except OSError:
            connected.close()
            raise
        return cls(connected)

    def send(self, frame: bytes, *files: int) -> None:
        """With copies of open files."""
        data = framed(frame)
        if files:
            sent = socket.send_fds(self.socket, [data], files)
            data = data[sent:]
        if data:
            self.socket.sendall(data)

    def send_raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> bytes:
        """The next frame.  Raises EOFError at the end, TimeoutError when nothing comes."""
        return self._exactly(LENGTH.unpack(self._exactly(4))[0])

    def is_closed(self) -> bool:
        """Whether the other end hung up; waits for it, and takes what it said before."""
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until:
            try:
                if not self.socket.recv(1 << 16):
                    return True
            except ConnectionResetError:
                return True
            except TimeoutError:
                return False
        return False

    def has_heard_nothing(self) -> bool:
        """Nothing was said, whether or not the other end hung up."""
        poll = select.poll()  # `select` knows no descriptor above 1023
        poll.register(self.socket, select.POLLIN)
        if not poll.poll(0):
            return True
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.socket.close()

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part, ancillary, _, _ = self.socket.recvmsg(
                min(size - len(data), 1 << 20), socket.CMSG_SPACE(MAX_DESCRIPTORS * DESCRIPTOR.size)
            )
            for _, _, numbers in ancillary:
                self.handles += [Handle(fd) for (fd,) in DESCRIPTOR.iter_unpack(numbers)]
            if not part:
                raise EOFError
            data += part
        return bytes(data)
