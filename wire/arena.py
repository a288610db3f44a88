"""Large request bodies in shared memory: only descriptors travel.

A frontend owns an arena and receives bodies straight into it; a worker copies
them out (`arena_reader.py`).  Through sockets a body would be copied six times.
`arena_layout.py` draws the files.

The owner frees a slot the moment nobody waits for its answer any more, even
though a worker may be about to read it.  That is safe because every use of a
slot has a generation of its own: a reader copies first and then looks whether
the number is still the one it was told.

Where there is no room, bodies travel inline.

Source: design section 3 (measured: 6-8 GB/s against 0.6 through sockets,
crossover 64 KiB; a file per request loses).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from stoker.errors import SettingsError
from stoker.wire.arena_layout import (
    PAGE,
    Descriptor,
    least_segment_bytes,
    segment_path,
    whole_pages,
)
from stoker.wire.arena_segment import Segment
from stoker.wire.runtime_dir import prepare_folder

#: Bodies below this travel inline.
MIN_BODY_BYTES: Final = 64 << 10
#: How an arena grows; reserving this much takes milliseconds.
SEGMENT_BYTES: Final = 16 << 20
#: A segment that was not used for so many calls of `sweep` goes back.
IDLE_SWEEPS: Final = 10
#: Of all of /dev/shm, this share stays free for others: handlers use it too.
FREE_SHARE: Final = 0.5


class Slot:
    """Room for one body, written by its owner.

    Attributes:
        view: Exactly as many writable bytes as were asked for.
    """

    __slots__ = ("_arena", "_is_free", "descriptor", "view")

    def __init__(self, arena: Arena, descriptor: Descriptor, view: memoryview) -> None:
        self._arena = arena
        self._is_free = False
        self.descriptor = descriptor
        self.view = view

    def __len__(self) -> int:
        return self.descriptor.length

    def free(self) -> None:
        """Nobody waits for the answer any more; harmless when repeated."""
        if not self._is_free:
            self._is_free = True
            self.view.release()
            self._arena._free(self.descriptor)


class Arena:
    """A frontend's shared memory, grown by segments up to a bound.

    Args:
        max_bytes: Most shared memory to hold at once; 0 turns the arena off.
    """

    def __init__(self, folder: Path, frontend_id: bytes, max_bytes: int) -> None:
        self._folder = folder
        self._frontend_id = frontend_id
        self._max_bytes = max_bytes
        self._segments: dict[int, Segment] = {}
        self._next_segment = 0
        self._generation = 0
        self._may_grow = True

    @property
    def size_bytes(self) -> int:
        """Shared memory held, used or not."""
        return sum(segment.size for segment in self._segments.values())

    @property
    def is_unused(self) -> bool:
        """No slot is out."""
        return all(segment.is_unused for segment in self._segments.values())

    def take(self, length: int) -> Slot | None:
        """Room for a body of `length` bytes; None: let it travel inline."""
        if length < MIN_BODY_BYTES or length > self._max_bytes:
            return None
        size = whole_pages(length)
        for number, segment in self._segments.items():
            offset = segment.take(size)
            if offset is not None:
                return self._slot(number, segment, offset, length)
        number = self._next_segment
        grown = self._grow(number, size)
        if grown is None:
            return None
        offset = grown.take(size)
        assert offset is not None
        return self._slot(number, grown, offset, length)

    def sweep(self) -> None:
        """Give back what has not been used for long; call about once a second."""
        self._may_grow = True
        for number, segment in list(self._segments.items()):
            if not segment.is_unused:
                segment.idle_sweeps = 0
                continue
            segment.idle_sweeps += 1
            if segment.idle_sweeps >= IDLE_SWEEPS:
                del self._segments[number]
                segment.close()

    def close(self) -> None:
        """Give everything back; slots that are still out may be freed later."""
        self._max_bytes = 0
        for segment in self._segments.values():
            segment.close()
        self._segments.clear()
        with contextlib.suppress(OSError):
            self._folder.rmdir()  # not while another frontend uses it

    def _slot(self, number: int, segment: Segment, offset: int, length: int) -> Slot:
        segment.idle_sweeps = 0
        self._generation += 1
        segment.write_generation(offset, self._generation)
        view = memoryview(segment.map)[offset : offset + length]
        return Slot(self, Descriptor(number, offset, length, self._generation), view)

    def _free(self, descriptor: Descriptor) -> None:
        segment = self._segments.get(descriptor.segment)
        if segment is not None:
            segment.write_generation(descriptor.offset, 0)
            segment.give_back(descriptor.offset, whole_pages(descriptor.length))

    def _grow(self, number: int, size: int) -> Segment | None:
        room = self._max_bytes - self.size_bytes
        least_bytes = least_segment_bytes(size)
        wanted = min(max(SEGMENT_BYTES, least_bytes), room)
        if wanted < least_bytes or not self._may_grow:
            return None
        try:
            prepare_folder(self._folder, may_be_passed=True)
            if not _has_room(self._folder, wanted):
                raise OSError("the rest is for others")
            path = segment_path(self._folder, self._frontend_id, number)
            segment = Segment(path, wanted // PAGE * PAGE)
        except (OSError, SettingsError):
            # /dev/shm is full, not there, or the folder is somebody else's:
            # inline is slower, not wrong.  Failing is dear, so not for each body.
            self._may_grow = False
            return None
        self._segments[number] = segment
        self._next_segment = number + 1
        return segment


def _has_room(folder: Path, wanted: int) -> bool:
    disk = os.statvfs(folder)
    return (disk.f_bavail * disk.f_frsize - wanted) >= disk.f_blocks * disk.f_frsize * FREE_SHARE
