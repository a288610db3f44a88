"""`tensor/ndlist`: arrays as DJL's clients send them.

    count:i32  then per array
    str "NDAR" | version:i32 = 3 | 0, or 1 and str name | str sparse format "default"
    | str dtype | rank:i32 | rank x i64 | layout length:i32 | that many 2-byte letters
    | "<" or ">" | length:i32 | data

All numbers are big-endian, but for the data, which says so itself; a `str` is
a 2-byte length and UTF-8.

Source: contracts/djl-serving.md 13.7.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Any, Final

MAGIC: Final = "NDAR"
VERSION: Final = 3
#: What begins a npz file, which is a zip.
NPZ_MAGIC: Final = b"PK"
MAX_RANK: Final = 64
_DTYPES: Final = {
    "FLOAT32": "f4",
    "FLOAT64": "f8",
    "FLOAT16": "f2",
    "UINT8": "u1",
    "UINT16": "u2",
    "UINT32": "u4",
    "UINT64": "u8",
    "INT8": "i1",
    "INT16": "i2",
    "INT32": "i4",
    "INT64": "i8",
    "BOOLEAN": "?",
    "COMPLEX64": "c8",
}
_NAMES: Final = {kind: name for name, kind in _DTYPES.items()}


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    def take(self, size: int) -> memoryview:
        if size < 0 or self._at + size > len(self._data):
            raise ValueError("the NDList is cut off")
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def number(self, kind: str) -> int:
        return int(struct.unpack(f">{kind}", self.take(struct.calcsize(f">{kind}")))[0])

    def text(self) -> str:
        return bytes(self.take(self.number("H"))).decode()


def read_ndlist(data: bytes | bytearray) -> list[Any]:
    """The arrays of a NDList, or of a npz file.

    Raises:
        ValueError: It is neither.
    """
    if bytes(data[:2]) == NPZ_MAGIC:
        return read_npz(data)
    reader = _Reader(bytes(data))
    count = reader.number("i")
    if not 0 <= count <= len(data):
        raise ValueError("the data is no NDList")
    return [_read_array(reader) for _ in range(count)]


def read_npz(data: bytes | bytearray) -> list[Any]:
    """The arrays of a npz file in order.  Raises ValueError, also for pickled objects."""
    import numpy

    with numpy.load(io.BytesIO(data), allow_pickle=False) as file:
        return [file[name] for name in file.files]


def _read_array(reader: _Reader) -> Any:
    import numpy

    if reader.text() != MAGIC:
        raise ValueError("the data is no NDList")
    if not 1 <= reader.number("i") <= VERSION:
        raise ValueError("the NDList has a version that is not known")
    if reader.number("B"):
        reader.text()  # its name, which handlers do not see
    if reader.text() != "default":
        raise ValueError("sparse arrays are not supported")
    dtype = reader.text().upper()
    if dtype not in _DTYPES:
        raise ValueError(f"arrays of {dtype} are not supported")
    rank = reader.number("i")
    if not 0 <= rank <= MAX_RANK:
        raise ValueError("the NDList has an impossible shape")
    shape = [reader.number("q") for _ in range(rank)]
    reader.take(2 * reader.number("i"))  # the layout
    order = bytes(reader.take(1)).decode("latin-1")
    if order not in "<>":
        raise ValueError("the NDList has an impossible byte order")
    body = reader.take(reader.number("i"))
    kind = numpy.dtype(_DTYPES[dtype]).newbyteorder("<" if order == "<" else ">")
    array = numpy.frombuffer(body, dtype=kind).reshape(shape)
    return array.astype(kind.newbyteorder("="), copy=False)


def write_ndlist(arrays: Sequence[Any]) -> bytes:
    """Raises ValueError for an array whose type DJL has no name for."""
    parts = [struct.pack(">i", len(arrays))]
    for array in arrays:
        _write_array(parts, array)
    return b"".join(parts)


def write_npz(arrays: Sequence[Any]) -> bytes:
    import numpy

    file = io.BytesIO()
    numpy.savez(file, *arrays)
    return file.getvalue()


def _write_array(parts: list[bytes], given: Any) -> None:
    import numpy

    array = numpy.ascontiguousarray(given).reshape(numpy.shape(given))
    name = _NAMES.get(array.dtype.str[1:].replace("b1", "?"))
    if name is None:
        raise ValueError(f"arrays of {array.dtype} are not supported")
    data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    parts += (_text(MAGIC), struct.pack(">iB", VERSION, 0), _text("default"), _text(name))
    parts.append(struct.pack(f">i{array.ndim}q", array.ndim, *array.shape))
    # A letter for each dimension; `?` for one that means nothing in particular.
    parts.append(struct.pack(">i", array.ndim) + "?".encode("utf-16-be") * array.ndim)
    parts += (b"<", struct.pack(">i", len(data)), data)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">H", len(encoded)) + encoded
