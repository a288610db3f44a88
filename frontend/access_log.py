"""Who asked for what: a line for every answer, for people and for programs.

    off    nothing (unless log_level is debug)
    log    an event in the server's own log, in its format
    file   access_log.log in log_dir, in TorchServe's words:
           2026-11-22T12:00:00,123 - /127.0.0.1:53514 "POST /predictions/m HTTP/1.1" 200 118

Lines for the file gather and leave together: with the sweep, or when there are
many.  All HTTP processes append to one file; whoever finds it too large puts it
aside, and a file that somebody else put aside is opened anew.

Source: contracts/torchserve.md 9.6.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from pathlib import Path
from typing import Final

from stoker.logs import get_logger

MAX_FILE_BYTES: Final = 100 << 20
MAX_LINES: Final = 512
#: A file that cannot be written is tried again after this.
RETRY_S: Final = 30.0

log = get_logger("http")
access = get_logger("access")


def log_event(request_id: str, method: bytes, url: bytes, status: int, taken_s: float) -> None:
    """One answer, into the server's log."""
    access.info(
        "request",
        request_id=request_id,
        method=method.decode("ascii"),
        path=url.partition(b"?")[0].decode("utf-8", "replace"),
        status=status,
        duration_ms=round(taken_s * 1000, 3),
    )


class AccessLog:
    """The file, as one process writes it."""

    def __init__(self, path: Path, max_file_bytes: int = MAX_FILE_BYTES) -> None:
        self._path = path
        self._max_file_bytes = max_file_bytes
        self._lines: list[bytes] = []
        self._fd: int | None = None
        self._retry_at = 0.0
        self._second = 0
        self._stamp = b""

    def note(
        self,
        transport: asyncio.BaseTransport,
        method: bytes,
        url: bytes,
        version: str,
        status: int,
        taken_s: float,
    ) -> None:
        """One answer."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(second)).encode()
        # A header or a body never comes here; what could end a line or a word is not in a URL.
        asked = url.replace(b'"', b"%22")
        line = b'%b,%03d - %b "%b %b HTTP/%b" %d %d\n' % (
            self._stamp,
            int(now % 1 * 1000),
            _peer(transport),
            method,
            asked,
            version.encode(),
            status,
            round(taken_s * 1000),
        )
        self._lines.append(line)
        if len(self._lines) >= MAX_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered; a full disk loses lines, never answers."""
        lines, self._lines = self._lines, []
        if not lines or time.monotonic() < self._retry_at:
            return
        try:
            self._open()
            assert self._fd is not None
            os.write(self._fd, b"".join(lines))
        except OSError as error:
            self.close()
            self._retry_at = time.monotonic() + RETRY_S
            log.warning("access log not written", file=self._path.name, reason=str(error))

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> None:
        """Have the file that has the name now, and room in it."""
        if self._fd is not None:
            if self._is_current(self._fd) and os.fstat(self._fd).st_size < self._max_file_bytes:
                return
            self._put_aside(self._fd)
            self.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._path, flags, 0o640)

    def _put_aside(self, fd: int) -> None:
        # Under a lock on this very file, so that of several processes one does it once.
        fcntl.flock(fd, fcntl.LOCK_EX)
        if self._is_current(fd):
            self._path.replace(self._path.with_name(self._path.name + ".1"))

    def _is_current(self, fd: int) -> bool:
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(fd))


def _peer(transport: asyncio.BaseTransport) -> bytes:
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        return b"/%b:%d" % (str(name[0]).encode(), name[1])
    return b"127.0.0.1"
