"""Where things lie in a file of an arena, and what names a body there.

    segment file  /dev/shm / folder of the runtime directory / frontend id (hex) "-" number

        | g g g ........ g | body ........... | body ... |
          |                  ^ slot offset, a multiple of a page
          one generation (8) per page of the file, 0 where no slot begins

    descriptor    segment | offset | length | generation

Generations lie apart from bodies, so no client can write one.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final, NamedTuple

PAGE: Final = 4096
#: Native: a word that is written and read in one piece.
GENERATION: Final = struct.Struct("@Q")


class Descriptor(NamedTuple):
    """Where a body lies; four small integers in a payload."""

    segment: int
    offset: int
    length: int
    generation: int


def segment_path(folder: Path, frontend_id: bytes, number: int) -> Path:
    return folder / f"{frontend_id.hex()}-{number}"


def generation_at(offset: int) -> int:
    """Where the generation lies of a slot that begins at `offset`."""
    return offset // PAGE * GENERATION.size


def whole_pages(length: int) -> int:
    """What a body of this length takes."""
    return -(-length // PAGE) * PAGE


def head_bytes(segment_bytes: int) -> int:
    """Room for a generation per page of a segment of this size."""
    return whole_pages(segment_bytes // PAGE * GENERATION.size)


def least_segment_bytes(size: int) -> int:
    """The least segment that holds one slot of `size`, which is whole pages."""
    head = head_bytes(size)
    # The head's own pages have generations too.
    while head_bytes(size + head) > head:
        head += PAGE
    return size + head
