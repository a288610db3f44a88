"""The receiving end of sd_notify: how a process we started says that it is ready."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final, Self

MAX_DATAGRAM_BYTES: Final = 4096
#: Datagrams read in one go; a talkative child leaves the loop to others in between.
MAX_READS: Final = 64


class NotifySocket:
    """A datagram socket at a path; whoever may open its folder may speak."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.unlink(missing_ok=True)
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        try:
            self._socket.bind(str(path))
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive_nowait(self) -> list[dict[str, str]]:
        """The messages that are there, each as its NAME=value lines."""
        messages = []
        for _ in range(MAX_READS):
            try:
                content = self._socket.recv(MAX_DATAGRAM_BYTES)
            except BlockingIOError:
                break
            messages.append(_parse(content))
        return messages

    def close(self) -> None:
        self._socket.close()
        self.path.unlink(missing_ok=True)


def _parse(content: bytes) -> dict[str, str]:
    lines = content.decode("utf-8", "replace").split("\n")
    return {
        name: value for name, is_pair, value in (line.partition("=") for line in lines) if is_pair
    }
