"""Copying bodies out of the arenas of all frontends.

A slot may be freed, and used again, at any moment: whoever reads one copies
first and then looks whether its generation is still the one it was told.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Final

from stoker.errors import Cancelled, ProtocolError
from stoker.wire.arena_layout import (
    GENERATION,
    PAGE,
    Descriptor,
    generation_at,
    head_bytes,
    segment_path,
)
from stoker.wire.frames import FRONTEND_ID_BYTES

_GONE: Final = "The client left."


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
            or offset % PAGE
            or offset < head_bytes(size)
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
            fd = _open(self._folder, frontend_id, segment)
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
            if not segment_path(self._folder, frontend_id, segment).exists():
                self._maps.pop((frontend_id, segment)).close()


def read_body(folder: Path, frontend_id: bytes, descriptor: Descriptor) -> bytes | None:
    """A copy of a body, for who must survive whatever its owner does; None: it is gone.

    Nothing is mapped: of a file that was emptied, a mapping would take new
    memory, and die of a SIGBUS where there is none.
    """
    segment, offset, length, generation = descriptor
    if len(frontend_id) != FRONTEND_ID_BYTES or generation <= 0 or offset % PAGE:
        return None
    try:
        fd = _open(folder, frontend_id, segment)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or offset < head_bytes(status.st_size):
            return None
        body = os.pread(fd, length, offset)
        # Afterwards: who frees it meanwhile has changed the number.
        word = os.pread(fd, GENERATION.size, generation_at(offset))
    except OSError:
        return None
    finally:
        os.close(fd)
    is_whole = len(body) == length and len(word) == GENERATION.size
    return body if is_whole and GENERATION.unpack(word)[0] == generation else None


def _open(folder: Path, frontend_id: bytes, segment: int) -> int:
    """Raises OSError: there is no such file (any more)."""
    path = segment_path(folder, frontend_id, segment)
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)


def _read_generation(mapped: mmap.mmap, offset: int) -> int:
    generation: int = GENERATION.unpack_from(mapped, generation_at(offset))[0]
    return generation
