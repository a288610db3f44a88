"""Large request bodies in shared memory: only descriptors travel.

A frontend owns an arena and receives bodies straight into it; a worker copies
them out.  Through sockets a body would be copied six times.

    segment file  /dev/shm / folder of the runtime directory / frontend id (hex) "-" number

        | g g g ........ g | body ........... | body ... |
          |                  ^ slot offset, a multiple of a page
          one generation (8) per page of the file, 0 where no slot begins

    descriptor    segment | offset | length | generation

The owner frees a slot the moment nobody waits for its answer any more, even
though a worker may be about to read it.  That is safe because every use of a
slot has a generation of its own: a reader copies first and then looks whether
the number is still the one it was told.  Generations lie apart from bodies, so
no client can write one.

Space is reserved with fallocate, because a full /dev/shm otherwise shows as
SIGBUS in the middle of a write.  Where there is no room, bodies travel inline.

Source: design section 3 (measured: 6-8 GB/s against 0.6 through sockets,
crossover 64 KiB; a file per request loses).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import Final, NamedTuple

from stoker.errors import Cancelled, ProtocolError, SettingsError
from stoker.wire.frames import FRONTEND_ID_BYTES
from stoker.wire.runtime_dir import prepare_folder

#: Bodies below this travel inline.
MIN_BODY_BYTES: Final = 64 << 10
#: How an arena grows; reserving this much takes milliseconds.
SEGMENT_BYTES: Final = 16 << 20
#: A segment that was not used for so many calls of `sweep` goes back.
IDLE_SWEEPS: Final = 10
#: Of all of /dev/shm, this share stays free for others: handlers use it too.
FREE_SHARE: Final = 0.5
_PAGE: Final = 4096
#: Native: a word that is written and read in one piece.
_GENERATION: Final = struct.Struct("@Q")
_SHM: Final = Path("/dev/shm")
#: A folder in the arenas' folder, so that it is never empty.
_HOLD: Final = "held"
#: It may pass, and read what it is told of.
_FOR_A_GROUP: Final = 0o710
_GONE: Final = "The client left."


class Descriptor(NamedTuple):
    """Where a body lies; four small integers in a payload."""

    segment: int
    offset: int
    length: int
    generation: int


def arena_folder(runtime_dir: Path) -> Path:
    """The folder of one server's arenas; every process derives the same one.

    Checksums suffice: they tell servers of one user apart, and keep nobody
    out.  A digest would cost every worker the OpenSSL library.
    """
    place = os.fsencode(os.path.realpath(runtime_dir))
    return _SHM / f"stoker-{os.geteuid()}-{zlib.crc32(place):08x}{zlib.adler32(place):08x}"


def hold_arenas(folder: Path, gid: int | None = None) -> None:
    """Keep the folder where it is: a sandbox shows this one and none that comes after it.

    Args:
        gid: A group that may read what is in it, also what is still to come.

    Raises:
        OSError, SettingsError: It is not ours, or we may not give it to that group.
    """
    prepare_folder(folder, may_be_passed=True)
    (folder / _HOLD).mkdir(mode=0o700, exist_ok=True)
    if gid is None:
        return
    os.chown(folder, -1, gid)
    os.chmod(folder, _FOR_A_GROUP)
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            os.chown(path, -1, gid, follow_symlinks=False)
            if path.name != _HOLD:
                os.chmod(path, 0o640)


def let_go_of_arenas(folder: Path) -> None:
    """Nobody's sandbox shows it any more."""
    with contextlib.suppress(OSError):
        (folder / _HOLD).rmdir()
        folder.rmdir()


def remove_arenas(folder: Path, frontend_id: bytes | None = None) -> None:
    """Remove what a dead frontend left, or everything; missing files are fine.

    Workers may still have the files mapped, so their memory is given back
    first; a worker that reads on finds generation 0.
    """
    prefix = "" if frontend_id is None else f"{frontend_id.hex()}-"
    for path in folder.glob(f"{prefix}*"):
        if path.name == _HOLD:
            continue
        _empty(path)
        path.unlink(missing_ok=True)
    if frontend_id is None:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _empty(path: Path) -> None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        with mmap.mmap(fd, 0) as mapped:
            mapped.madvise(mmap.MADV_REMOVE)
    except (OSError, ValueError):
        pass  # not a file of ours; it only loses its name
    finally:
        os.close(fd)


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


class _Segment:
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
        head = _head_bytes(size)
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
        _GENERATION.pack_into(self.map, _generation_at(offset), generation)

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


class Arena:
    """A frontend's shared memory, grown by segments up to a bound.

    Args:
        max_bytes: Most shared memory to hold at once; 0 turns the arena off.
    """

    def __init__(self, folder: Path, frontend_id: bytes, max_bytes: int) -> None:
        self._folder = folder
        self._prefix = frontend_id.hex()
        self._max_bytes = max_bytes
        self._segments: dict[int, _Segment] = {}
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
        size = _rounded(length)
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

    def _slot(self, number: int, segment: _Segment, offset: int, length: int) -> Slot:
        segment.idle_sweeps = 0
        self._generation += 1
        segment.write_generation(offset, self._generation)
        view = memoryview(segment.map)[offset : offset + length]
        return Slot(self, Descriptor(number, offset, length, self._generation), view)

    def _free(self, descriptor: Descriptor) -> None:
        segment = self._segments.get(descriptor.segment)
        if segment is not None:
            segment.write_generation(descriptor.offset, 0)
            segment.give_back(descriptor.offset, _rounded(descriptor.length))

    def _grow(self, number: int, size: int) -> _Segment | None:
        room = self._max_bytes - self.size_bytes
        segment_bytes = _segment_bytes(size)
        wanted = min(max(SEGMENT_BYTES, segment_bytes), room)
        if wanted < segment_bytes or not self._may_grow:
            return None
        try:
            prepare_folder(self._folder, may_be_passed=True)
            if not _has_room(self._folder, wanted):
                raise OSError("the rest is for others")
            segment = _Segment(self._folder / f"{self._prefix}-{number}", wanted // _PAGE * _PAGE)
        except (OSError, SettingsError):
            # /dev/shm is full, not there, or the folder is somebody else's:
            # inline is slower, not wrong.  Failing is dear, so not for each body.
            self._may_grow = False
            return None
        self._segments[number] = segment
        self._next_segment = number + 1
        return segment


class ArenaReader:
    """A worker's view of all frontends' arenas.

    Args:
        owner: Whose they must be; the server may be another user than its workers.
    """

    #: Mappings kept at once; the oldest goes first.
    MAX_MAPPINGS: Final = 256

    def __init__(self, folder: Path, owner: int | None = None) -> None:
        self._folder = folder
        self._owner = os.geteuid() if owner is None else owner
        self._maps: dict[tuple[bytes, int], mmap.mmap] = {}

    def read(self, frontend_id: bytes, descriptor: Descriptor) -> bytearray:
        """A private copy of the body.

        Raises:
            Cancelled: The owner has freed it: nobody waits for this answer.
            ProtocolError: The descriptor leads out of its segment.
        """
        segment, offset, length, generation = descriptor
        if len(frontend_id) != FRONTEND_ID_BYTES:
            raise ProtocolError("a descriptor without a frontend")
        mapped = self._maps.get((frontend_id, segment)) or self._map(frontend_id, segment)
        size = len(mapped)
        if (
            generation <= 0
            or offset % _PAGE
            or offset < _head_bytes(size)
            or not 0 <= length <= size - offset
        ):
            raise ProtocolError("a descriptor leads out of its segment")
        # Looking first spares the copy and, of a file that was emptied, new pages.
        if _read_generation(mapped, offset) != generation:
            raise Cancelled(_GONE)
        with memoryview(mapped) as view, view[offset : offset + length] as part:
            body = bytearray(part)
        if _read_generation(mapped, offset) != generation:
            raise Cancelled(_GONE)
        return body

    def close(self) -> None:
        for mapped in self._maps.values():
            mapped.close()
        self._maps.clear()

    def _map(self, frontend_id: bytes, segment: int) -> mmap.mmap:
        try:
            fd = os.open(
                self._path(frontend_id, segment), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
            )
        except OSError:
            raise Cancelled(_GONE) from None
        try:
            if os.fstat(fd).st_uid != self._owner:
                raise ProtocolError("a segment of somebody else's")
            mapped = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        except (OSError, ValueError):
            raise Cancelled(_GONE) from None
        finally:
            os.close(fd)
        self._forget_removed()
        while len(self._maps) >= self.MAX_MAPPINGS:
            self._maps.pop(next(iter(self._maps))).close()
        self._maps[frontend_id, segment] = mapped
        return mapped

    def _forget_removed(self) -> None:
        for frontend_id, segment in list(self._maps):
            if not self._path(frontend_id, segment).exists():
                self._maps.pop((frontend_id, segment)).close()

    def _path(self, frontend_id: bytes, segment: int) -> Path:
        return self._folder / f"{frontend_id.hex()}-{segment}"


def read_body(folder: Path, frontend_id: bytes, descriptor: Descriptor) -> bytes | None:
    """A copy of a body, for who must survive whatever its owner does; None: it is gone.

    Nothing is mapped: of a file that was emptied, a mapping would take new
    memory, and die of a SIGBUS where there is none.
    """
    segment, offset, length, generation = descriptor
    if len(frontend_id) != FRONTEND_ID_BYTES or generation <= 0 or offset % _PAGE:
        return None
    path = folder / f"{frontend_id.hex()}-{segment}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or offset < _head_bytes(status.st_size):
            return None
        body = os.pread(fd, length, offset)
        # Afterwards: who frees it meanwhile has changed the number.
        word = os.pread(fd, _GENERATION.size, _generation_at(offset))
    except OSError:
        return None
    finally:
        os.close(fd)
    is_whole = len(body) == length and len(word) == _GENERATION.size
    return body if is_whole and _GENERATION.unpack(word)[0] == generation else None


def _read_generation(mapped: mmap.mmap, offset: int) -> int:
    generation: int = _GENERATION.unpack_from(mapped, _generation_at(offset))[0]
    return generation


def _generation_at(offset: int) -> int:
    return offset // _PAGE * _GENERATION.size


def _rounded(length: int) -> int:
    return -(-length // _PAGE) * _PAGE


def _head_bytes(segment_bytes: int) -> int:
    """Room for a generation per page of a segment of this size."""
    return _rounded(segment_bytes // _PAGE * _GENERATION.size)


def _segment_bytes(size: int) -> int:
    """The least segment that holds one slot of `size`, which is whole pages."""
    head = _head_bytes(size)
    # The head's own pages have generations too.
    while _head_bytes(size + head) > head:
        head += _PAGE
    return size + head


def _has_room(folder: Path, wanted: int) -> bool:
    disk = os.statvfs(folder)
    return (disk.f_bavail * disk.f_frsize - wanted) >= disk.f_blocks * disk.f_frsize * FREE_SHARE
