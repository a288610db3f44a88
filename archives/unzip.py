"""Zip archives (`.mar`): stored or deflated members, nothing else."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, BinaryIO, Final

from stoker.archives.members import CHUNK_BYTES, MemberWriter

#: Size of a directory entry we are ready to read, on average: 46 bytes and the names.
_DIRECTORY_ENTRY_BYTES: Final = 512
_DIRECTORY_ENTRY_MAGIC: Final = b"PK\x01\x02"
_ENCRYPTED: Final = 0x1


class _DirectoryGuard(io.RawIOBase):
    """Stands between zipfile and the file while it reads the central directory.

    zipfile reads that directory in one piece and makes an object per entry
    before anyone can count them; an archive of some gigabytes could thereby
    fill our memory.  Here the piece is measured and its entries counted first.
    """

    def __init__(self, file: BinaryIO, writer: MemberWriter) -> None:
        self._file = file
        self._writer = writer
        self._max_bytes = writer.max_files * _DIRECTORY_ENTRY_BYTES + (1 << 17)
        self.is_opening = True

    def read(self, size: int = -1, /) -> bytes:
        if not self.is_opening:
            return self._file.read(size)
        if size > self._max_bytes:
            self._writer.refuse("the directory of the archive is too large")
        piece = self._file.read(size if size >= 0 else self._max_bytes)
        if piece.count(_DIRECTORY_ENTRY_MAGIC) > self._writer.max_files:
            self._writer.refuse("too many members")
        return piece

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def unzip(file: BinaryIO, writer: MemberWriter) -> None:
    """Feed every member of the zip in `file` to `writer`.

    Raises:
        ArchiveUnreadable: hostile or damaged.
    """
    guard = _DirectoryGuard(file, writer)
    try:
        with zipfile.ZipFile(guard) as archive:
            guard.is_opening = False
            members = archive.infolist()
            _check_overlap(members, writer)
            for member in members:
                _add(archive, member, writer)
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        UnicodeError,
        ValueError,
        OverflowError,
    ) as error:
        writer.refuse(f"damaged zip: {error}")


def _check_overlap(members: list[zipfile.ZipInfo], writer: MemberWriter) -> None:
    """Refuse members that share compressed bytes: a small file, unpacked without end."""
    end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset < end:
            writer.refuse("members overlap")
        end = member.header_offset + 30 + member.compress_size


def _add(archive: zipfile.ZipFile, member: zipfile.ZipInfo, writer: MemberWriter) -> None:
    name = member.orig_filename
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        writer.refuse("a member is a link or a device")
    if member.flag_bits & _ENCRYPTED:
        writer.refuse("a member is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        writer.refuse("a member has an unknown compression")
    if name.endswith("/"):
        if member.file_size:
            writer.refuse("a folder has contents")
        writer.add_directory(name)
        return
    if stat.S_ISDIR(mode):
        writer.refuse("a file claims to be a folder")
    with archive.open(member) as source:
        writer.add_file(
            name, _chunks(source), member.file_size, is_executable=bool(mode & stat.S_IXUSR)
        )


def _chunks(source: IO[bytes]) -> Iterator[bytes]:
    while chunk := source.read(CHUNK_BYTES):
        yield chunk
