"""A socket that speaks HTTP without any helpfulness."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from facts import DEADLINE_S


class RawHttp:
    """Bytes out as they are; bytes in by what HTTP puts around them."""

    def __init__(self, address: Any, family: int = socket.AF_INET) -> None:
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(address)
        self._buffer = b""

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def take_head(self) -> tuple[str, list[tuple[str, str]]]:
        """The status line and the headers."""
        head = self.read_until(b"\r\n\r\n").decode("latin-1")
        status_line, *lines = head.split("\r\n")[:-2]
        pairs = [line.partition(": ") for line in lines]
        return status_line, [(name, value) for name, _, value in pairs]

    def read_chunks(self) -> Iterator[bytes]:
        while chunk := self.read_chunk():
            yield chunk

    def read_chunk(self) -> bytes:
        """b"" for the terminating chunk; EOFError if the connection ends without one."""
        size = int(self.read_until(b"\r\n"), 16)
        return self.read_exactly(size + 2)[:-2]

    def read_until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._more()
        found, _, self._buffer = self._buffer.partition(end)
        return found + end

    def read_exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def read_some(self) -> bytes:
        """Whatever has come; waits for something."""
        if not self._buffer:
            self._more()
        found, self._buffer = self._buffer, b""
        return found

    def read_rest(self) -> bytes:
        with contextlib.suppress(EOFError):
            while True:
                self._more()
        return self._buffer

    def is_ended(self) -> bool:
        """The server has closed its side and said nothing more."""
        return not self._buffer and self.socket.recv(1) == b""

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(f"the connection ended after {self._buffer!r}")
        self._buffer += data
