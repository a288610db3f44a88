"""What passes between the ranks of one worker: a byte stream, one message after the other.

length (4 bytes, big endian) | msgpack of [kind, ...]

from rank 0     "load", spec          once
                "batch", [payload]    for every batch, if the spec says so
to rank 0       "loaded"              once, or
                "failed", code, message, last line
"""

from __future__ import annotations

import socket
import struct
from typing import Any, Final

from stoker.errors import ProtocolError
from stoker.wire import packing

LOAD: Final = "load"
BATCH: Final = "batch"
LOADED: Final = "loaded"
FAILED: Final = "failed"

_LENGTH: Final = struct.Struct(">I")


class RankLink:
    """One end of a socket pair; blocking, for processes that trust each other."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, *message: Any) -> None:
        """Raises OSError when the other end is gone."""
        frame = packing.pack(message)
        self._socket.sendall(_LENGTH.pack(len(frame)))
        self._socket.sendall(frame)

    def receive(self) -> list[Any] | None:
        """The next message; None when the other end has hung up.

        Raises:
            ProtocolError: It hung up in the middle of one.
        """
        head = self._read(_LENGTH.size)
        if head is None:
            return None
        frame = self._read(_LENGTH.unpack(head)[0])
        if frame is None:
            raise ProtocolError("a message between ranks is cut off")
        message: list[Any] = packing.unpack(frame)
        return message

    def hang_up(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        self._socket.close()

    def _read(self, size: int) -> bytes | None:
        pieces = []
        while size:
            try:
                piece = self._socket.recv(min(size, 1 << 20))
            except ConnectionResetError:
                return None
            if not piece:
                return None
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)
