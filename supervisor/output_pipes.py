"""The pipes that a worker writes to: read as something comes, and closed."""

from __future__ import annotations

import asyncio
import ctypes
import os
import stat
from collections.abc import Callable, Mapping
from typing import Final

from stoker.supervisor.worker_output import Stream

#: One read of a worker's output; a flood from one worker leaves the loop to others in between.
READ_BYTES: Final = 1 << 16
#: What is still taken from the pipes of a dead worker; twice a pipe's usual capacity.
DRAIN_READS: Final = 2
#: The same number on all processors.
_PIDFD_GETFD: Final = 438


class OutputPipes:
    """Both streams of one process, until they end or are closed.

    Args:
        streams: Reading ends that do not block; they are ours from now on.
        take: Called with what has come; never raises.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        streams: Mapping[Stream, int],
        take: Callable[[Stream, bytes], None],
    ) -> None:
        self._loop = loop
        self._streams = dict(streams)
        self._take = take
        for stream, fd in self._streams.items():
            loop.add_reader(fd, self._read, stream)

    def drain(self) -> None:
        """Take what a process that is dead had still written."""
        for stream in tuple(self._streams):
            for _ in range(DRAIN_READS):
                self._read(stream)

    def close(self) -> None:
        for stream in tuple(self._streams):
            self._close(stream)

    def _read(self, stream: Stream) -> None:
        fd = self._streams.get(stream)
        if fd is None:
            return
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._take(stream, data)
        else:
            self._close(stream)

    def _close(self, stream: Stream) -> None:
        fd = self._streams.pop(stream)
        self._loop.remove_reader(fd)
        os.close(fd)


def open_output(pid: int) -> dict[Stream, int]:
    """Reading ends of the pipes that a process writes to.  Raises LookupError."""
    streams: dict[Stream, int] = {}
    try:
        for stream, fd in ((Stream.STDOUT, 1), (Stream.STDERR, 2)):
            try:
                reading = _open_pipe(f"/proc/{pid}/fd/{fd}")
            except PermissionError:
                # Another user's: with CAP_SYS_PTRACE one may have its end, but not look there.
                end = _get_descriptor(pid, fd)
                try:
                    reading = _open_pipe(f"/proc/self/fd/{end}")
                finally:
                    os.close(end)
            if reading is not None:
                streams[stream] = reading
    except OSError as error:
        for opened in streams.values():
            os.close(opened)
        raise LookupError(str(error)) from None
    return streams


def _open_pipe(path: str) -> int | None:
    """The reading end; None when a handler has put something else in its place."""
    if not stat.S_ISFIFO(os.stat(path).st_mode):
        return None
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _get_descriptor(pid: int, fd: int) -> int:
    """A duplicate of another process's descriptor.  Raises OSError."""
    pidfd = os.pidfd_open(pid)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        found: int = libc.syscall(_PIDFD_GETFD, pidfd, fd, 0)
        if found < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return found
    finally:
        os.close(pidfd)
