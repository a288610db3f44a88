"""Tar archives, plain or gzipped, and the peer's habit of dropping the first path part.

Source: contracts/torchserve.md 3.2.5.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from stoker.archives.manifest import MANIFEST_PATH
from stoker.archives.members import CHUNK_BYTES, MemberWriter

_BLOCK: Final = 512
#: What may stand between two members: headers with long names, and padding.
_HEADER_BYTES: Final = 256 << 10
#: Zeros after the last member (GNU tar rounds up to 10 KiB; others to more).
_TRAILER_BYTES: Final = 1 << 20
_MAX_GLOBAL_HEADERS: Final = 64


class _MeteredReader(io.RawIOBase):
    """Forward-only reading under an allowance.

    tarfile reads extended headers of any length into memory, and a gzip makes
    them cheap to send.  Whoever uses this says how much may be read next.
    """

    def __init__(self, file: BinaryIO | gzip.GzipFile, writer: MemberWriter) -> None:
        self._file = file
        self._writer = writer
        self._at = 0
        self._allowance = 0
        self.last_block = b""

    def allow(self, size: int) -> None:
        self._allowance = size

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= self._allowance:
            self._writer.refuse("a header is too large")
        data = self._file.read(size)
        self._allowance -= len(data)
        self._at += len(data)
        self.last_block = data
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if whence != 0 or offset < self._at:
            self._writer.refuse("damaged tar: a header leads backwards")
        while self._at < offset:
            if not self.read(min(offset - self._at, _BLOCK)):
                break
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def untar(file: BinaryIO, root: Path, writer: MemberWriter, *, is_gzip: bool) -> None:
    """Feed every member of the tar in `file` to `writer`, then drop the first path part.

    Raises:
        ArchiveUnreadable: hostile or damaged.
    """
    try:
        if is_gzip:
            with gzip.GzipFile(fileobj=file, mode="rb") as inner:
                is_dotted = _add_all(_MeteredReader(inner, writer), writer)
        else:
            is_dotted = _add_all(_MeteredReader(file, writer), writer)
    except (
        tarfile.TarError,
        gzip.BadGzipFile,
        zlib.error,
        EOFError,
        UnicodeError,
        ValueError,
        OverflowError,
    ) as error:
        writer.refuse(f"damaged tar: {error}")
    _drop_first_part(root, writer, is_dotted=is_dotted)


def _add_all(reader: _MeteredReader, writer: MemberWriter) -> bool:
    """Write all members; tell whether names start with `./`."""
    is_dotted = False
    reader.allow(_HEADER_BYTES)
    with tarfile.TarFile(fileobj=reader, mode="r") as archive:
        while (member := archive.next()) is not None:
            _add(reader, archive, member, writer)
            is_dotted = is_dotted or member.name == "." or member.name.startswith("./")
            # It would keep every header until the end; the attribute is public, typeshed lacks it.
            archive.members.clear()  # type: ignore[attr-defined]
            reader.allow(_HEADER_BYTES)
    # tarfile takes the end of the file, or rubbish, for the end of the archive.
    if reader.last_block != bytes(_BLOCK):
        writer.refuse("damaged tar: it has no end mark")
    # A gzip is only proven whole by reading to its end.
    reader.allow(_TRAILER_BYTES)
    while trailer := reader.read(_BLOCK * 16):
        if trailer.count(0) != len(trailer):
            writer.refuse("damaged tar: something follows its end")
        reader.allow(_TRAILER_BYTES)
        writer.spend_padding(len(trailer))
    return is_dotted


def _add(
    reader: _MeteredReader,
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    writer: MemberWriter,
) -> None:
    if len(archive.pax_headers) > _MAX_GLOBAL_HEADERS:
        writer.refuse("too many global headers")
    if member.isdir():
        if member.size:
            writer.refuse("a folder has contents")
        writer.add_directory(member.name)
        return
    if not member.isreg() or member.issparse():
        writer.refuse("a member is a link or a device")
    if member.size < 0:
        writer.refuse("a member has a negative size")
    writer.add_file(
        member.name,
        _chunks(reader, member),
        member.size,
        is_executable=bool(member.mode & stat.S_IXUSR),
    )


def _chunks(reader: _MeteredReader, member: tarfile.TarInfo) -> Iterator[bytes]:
    reader.allow(_HEADER_BYTES)
    reader.seek(member.offset_data)
    left = member.size
    while left:
        size = min(left, CHUNK_BYTES)
        reader.allow(size)
        chunk = reader.read(size)
        if not chunk:
            return
        left -= len(chunk)
        yield chunk


def _drop_first_part(root: Path, writer: MemberWriter, *, is_dotted: bool) -> None:
    """Undo the packing of everything into one top folder.

    The peer always drops the first part of each name.  We do the same, except
    where it would break an archive that was packed without a top folder: one
    with its manifest at the root, or whose names start with `./` (there the
    dot is the part dropped).
    """
    if (root / MANIFEST_PATH).is_file():
        return
    entries = sorted(root.iterdir())
    folders = [entry for entry in entries if entry.is_dir()]
    is_wrapped = len(entries) == 1 and len(folders) == 1
    if is_dotted and not is_wrapped:
        return
    # Into a name of ours first: a folder may hold an entry of its own name.
    for number, folder in enumerate(folders):
        aside = root / f".unpacked-{number}"
        if aside.exists():
            writer.refuse("a member has a reserved name")
        folder.rename(aside)
        folders[number] = aside
    for aside in folders:
        for entry in sorted(aside.iterdir()):
            target = root / entry.name
            if os.path.lexists(target):
                writer.refuse("two members have the same name without their top folder")
            entry.rename(target)
        aside.rmdir()
