"""Lending large bodies of answers to the frontends; see `wire/lent_bodies.py`.

A file may be written anew once every copy of what was lent of it is closed, and
nobody needs to tell: what is lent is an open file of its own with a shared
`flock`, and the kernel drops that lock with the last copy, whoever held it and
however they ended.

Source: flock(2): a lock belongs to the open file, not to a process or a descriptor.
"""

from __future__ import annotations

import fcntl
import os
from typing import Any, Final

from stoker.wire import packing
from stoker.wire.frames import CALL_MARK, Group, Reply
from stoker.wire.lent_bodies import MAX_FILE_BYTES, MIN_BODY_BYTES, SEALS, Handle, LentFrame
from stoker.wire.stream import MAX_HANDLES
from stoker.worker.answers import BODY, ROW_FIELDS, LooseFrame

#: Files that one worker lends at a time, or keeps for the next bodies.
MAX_FILES: Final = 8
#: The least size of a file; each next one is twice as large.
LEAST_BYTES: Final = 1 << 20
#: After so long without a large body the memory goes back.
IDLE_S: Final = 10.0


class Lender:
    """A worker's files, lent and free.

    Every call may find that it cannot be done, for want of memory, descriptors
    or /proc; then bodies travel inline, which is slower and not wrong.
    """

    def __init__(self) -> None:
        #: By descriptor: the size of the file.
        self._files: dict[int, int] = {}
        self._used_at = 0.0

    @property
    def size_bytes(self) -> int:
        """Memory that may be taken, lent or not."""
        return sum(self._files.values())

    def lend_from(self, replies: list[Reply], now: float) -> tuple[list[Reply], list[LentFrame]]:
        """The replies with their large bodies lent, and the frames that are, in their order."""
        lent: list[LentFrame] = []
        told: list[Reply] = []
        for reply in replies:
            groups = []
            for group in reply.groups:
                frontend_id, frame = group
                if isinstance(frame, LooseFrame):
                    loan = None
                    # Of a workflow's node the supervisor wants to see the beginning.
                    if frontend_id[0] != CALL_MARK and len(lent) < MAX_HANDLES:
                        loan = self.lend(frame, now)
                    if loan is not None:
                        lent.append(loan)
                    group = Group(frontend_id, loan or frame.packed())
                groups.append(group)
            told.append(reply._replace(groups=groups))
        return told, lent

    def lend(self, frame: LooseFrame, now: float) -> LentFrame | None:
        """The same frame with its large bodies in a file of their own; None: not now."""
        self._used_at = now
        try:
            fd = self._free_file(len(frame))
            if fd is None:
                return None
            try:
                fields = _write(fd, frame.fields)
                handle = Handle(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC))
                fcntl.flock(handle, fcntl.LOCK_SH)
            except OSError:
                self._drop(fd)
                raise
        except OSError:
            return None
        return LentFrame(packing.pack(fields), handle)

    def due_in(self, now: float) -> float | None:
        """Seconds until unused memory goes back; None: there is none."""
        return max(0.0, self._used_at + IDLE_S - now) if self._files else None

    def run(self, now: float) -> None:
        """Give everything back that was not lent for long."""
        if self._files and now - self._used_at >= IDLE_S:
            self.close()

    def close(self) -> None:
        """Borrowers keep what they have."""
        for fd in list(self._files):
            self._drop(fd)

    def _free_file(self, length: int) -> int | None:
        """Raises OSError."""
        size = max(LEAST_BYTES, 1 << (length - 1).bit_length())
        free = []
        for fd, its_size in self._files.items():
            if its_size == size and _is_back(fd):
                return fd
            free.append(fd)
        if size > MAX_FILE_BYTES:
            return None
        while len(self._files) >= MAX_FILES or self.size_bytes + size > MAX_FILE_BYTES:
            unused = next((fd for fd in free if fd in self._files and _is_back(fd)), None)
            if unused is None:
                return None
            self._drop(unused)
        fd = os.memfd_create("stoker answer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._files[fd] = size
        try:
            os.ftruncate(fd, size)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
        except OSError:
            self._drop(fd)
            raise
        return fd

    def _drop(self, fd: int) -> None:
        del self._files[fd]
        os.close(fd)


def _write(fd: int, fields: list[Any]) -> list[Any]:
    """Write large bodies one after the other; the fields with their places.  Raises OSError."""
    told = list(fields)
    at = 0
    for index in range(BODY, len(fields), ROW_FIELDS):
        body = fields[index]
        if len(body) >= MIN_BODY_BYTES:
            told[index] = [at, len(body)]
            rest = memoryview(body)
            while rest:
                written = os.pwrite(fd, rest, at)
                at += written
                rest = rest[written:]
    return told


def _is_back(fd: int) -> bool:
    """Whether nobody has what was lent of it any more."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True
