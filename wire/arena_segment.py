"""A file of shared memory that is given out in stretches.

Space is reserved with fallocate, because a full /dev/shm otherwise shows as
SIGBUS in the middle of a write.
"""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path

from stoker.wire.arena_layout import GENERATION, generation_at, head_bytes


class Segment:
    """One mapped file and its free stretches, by offset."""

    def __init__(self, path: Path, size: int) -> None:
        """Raises OSError when there is no room; then nothing is left behind."""
        self.path = path
        self.size = size
        self.idle_sweeps = 0
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            folder = os.stat(path.parent)
            if folder.st_mode & stat.S_IXGRP:
                # The supervisor has opened it to the workers' group.
                os.chown(fd, -1, folder.st_gid)
                os.fchmod(fd, 0o640)
            os.posix_fallocate(fd, 0, size)
            self.map = mmap.mmap(fd, size)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        head = head_bytes(size)
        self._whole = (head, size - head)
        self.stretches = [self._whole]

    def take(self, size: int) -> int | None:
        """Offset of a stretch of `size` bytes, or None."""
        for index, (offset, length) in enumerate(self.stretches):
            if length >= size:
                if length == size:
                    del self.stretches[index]
                else:
                    self.stretches[index] = (offset + size, length - size)
                return offset
        return None

    def give_back(self, offset: int, size: int) -> None:
        """Return a stretch and join it with its neighbours."""
        joined: list[tuple[int, int]] = []
        for start, length in sorted([*self.stretches, (offset, size)]):
            if joined and joined[-1][0] + joined[-1][1] == start:
                joined[-1] = (joined[-1][0], joined[-1][1] + length)
            else:
                joined.append((start, length))
        self.stretches = joined

    @property
    def is_unused(self) -> bool:
        return self.stretches == [self._whole]

    def write_generation(self, offset: int, generation: int) -> None:
        GENERATION.pack_into(self.map, generation_at(offset), generation)

    def close(self) -> None:
        """Give the memory back, also where a worker has it mapped."""
        try:
            self.map.madvise(mmap.MADV_REMOVE)
        except OSError:
            pass  # then it goes with the last mapping
        self.path.unlink(missing_ok=True)
        try:
            self.map.close()
        except BufferError:
            pass  # a view is still out; the mapping goes with it
