"""Plain values to bytes and back: msgpack with our options, under our limits.

Unpacking trusts nobody: what is truncated, deep, too large or simply not ours
raises `ProtocolError`.  Packing re-uses one Packer per process (none of our
processes packs from two threads).

`codec.py` makes messages of it; payloads (`payloads.py`) are packed as they are.
"""

from __future__ import annotations

from typing import Any, Final

import msgpack

from stoker.errors import ProtocolError
from stoker.wire.limits import (
    HEAD_BYTES,
    MAX_ELEMENTS,
    MAX_MAP_ENTRIES,
    MAX_PAYLOAD_BYTES,
    MAX_TEXT_BYTES,
    UNWALKED_BYTES,
)

packer: Final = msgpack.Packer(use_bin_type=True, autoreset=True)


def pack(value: Any) -> bytes:
    """Plain msgpack with our options; for payloads and frames alike."""
    packed: bytes = packer.pack(value)
    return packed


def unpack(frame: bytes | memoryview) -> Any:
    """Plain msgpack under our limits.  Raises ProtocolError, nothing else."""
    size = len(frame)
    if size > UNWALKED_BYTES:
        _count_elements(frame)
    try:
        return msgpack.unpackb(
            frame,
            raw=False,
            strict_map_key=True,
            ext_hook=_refuse_ext,
            max_bin_len=MAX_PAYLOAD_BYTES,
            max_str_len=MAX_TEXT_BYTES,
            # msgpack makes room for as many elements as a header claims, and an
            # element takes a byte at least.
            max_array_len=min(MAX_ELEMENTS, size),
            max_map_len=MAX_MAP_ENTRIES,
            max_ext_len=0,
        )
    # msgpack raises ValueError, UnpackException, TypeError, RecursionError, ...
    except Exception as error:
        raise ProtocolError(f"not a frame of ours: {type(error).__name__}") from None


def unpack_head(frame: bytes, count: int) -> list[Any]:
    """The first `count` elements of an array, without the rest of it.

    Raises:
        ProtocolError: There are not so many within HEAD_BYTES, or they are no frame of ours.
    """
    head, _, _ = _read_head(frame, count)
    return head


def split_head(frame: bytes, count: int) -> tuple[list[Any], bytes]:
    """The first `count` elements of an array, and the others, unopened, as an array.

    Raises:
        ProtocolError: As `unpack_head`.
    """
    head, left, at = _read_head(frame, count)
    header: bytes = packer.pack_array_header(left)
    packer.reset()
    return head, b"".join((header, memoryview(frame)[at:]))


def _read_head(frame: bytes, count: int) -> tuple[list[Any], int, int]:
    """The first elements, how many come behind them, and where those begin."""
    unpacker = msgpack.Unpacker(
        raw=False, ext_hook=_refuse_ext, max_buffer_size=HEAD_BYTES, strict_map_key=True
    )
    try:
        unpacker.feed(frame[:HEAD_BYTES])
        left = unpacker.read_array_header() - count
        if left < 0:
            raise ValueError("too short")
        return [unpacker.unpack() for _ in range(count)], left, unpacker.tell()
    except Exception as error:
        raise ProtocolError(f"not a frame of ours: {type(error).__name__}") from None


def _refuse_ext(code: int, data: bytes) -> Any:
    raise ValueError("no ext types")


#: By first byte of an element: its size in bytes; or minus the width of the
#: length that follows; or 0 for an array, a map, or what we never send.
_SIZES: Final = tuple(
    1 if tag < 0x80 or tag >= 0xE0 or tag in (0xC0, 0xC2, 0xC3)
    else tag - 0xA0 + 1 if 0xA0 <= tag < 0xC0
    else {
        0xC4: -1, 0xC5: -2, 0xC6: -4,  # bin
        0xD9: -1, 0xDA: -2, 0xDB: -4,  # str
        0xCA: 5, 0xCB: 9,  # float
        0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9,  # uint
        0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9,  # int
    }.get(tag, 0)
    for tag in range(256)
)  # fmt: skip


def _count_elements(frame: bytes | memoryview) -> None:
    """Refuse a large frame that claims more than MAX_ELEMENTS, at any depth in all.

    msgpack limits every array, not their sum, and a megabyte of empty maps
    would become sixty.  One linear walk from header to header; a frame with a
    few large bodies takes a few steps.
    """
    at, end = 0, len(frame)
    due, claimed = 1, 0
    while due and at < end:
        due -= 1
        tag = frame[at]
        size = _SIZES[tag]
        if size > 0:
            at += size
            continue
        if size < 0:
            body = at + 1 - size
            at = body + int.from_bytes(frame[at + 1 : body], "big")
            continue
        if 0x80 <= tag < 0xA0:  # a small map or array
            count, is_map = tag & 0x0F, tag < 0x90
            at += 1
        elif 0xDC <= tag <= 0xDF:
            body = at + (5 if tag & 1 else 3)
            count, is_map = int.from_bytes(frame[at + 1 : body], "big"), tag >= 0xDE
            at = body
        else:
            raise ProtocolError("a frame has an element of no known type")
        due += 2 * count if is_map else count
        claimed += 2 * count if is_map else count
        if claimed > MAX_ELEMENTS:
            raise ProtocolError("a frame has too many elements")
