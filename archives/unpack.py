"""An archive file becomes a folder, or nothing does.

The format is decided by the first bytes, not by the name: a `.mar` that is a
tar.gz works, and so does the reverse.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from stoker.archives.members import Contents, MemberWriter, UnpackLimits, unreadable

_ZIP_MAGICS: Final = (b"PK\x03\x04", b"PK\x05\x06")
_GZIP_MAGIC: Final = b"\x1f\x8b"


def unpack(
    file: BinaryIO,
    root: Path,
    url: str,
    limits: UnpackLimits,
    should_stop: Callable[[], bool] = lambda: False,
) -> Contents:
    """Unpack `file` into `root`, which must not exist yet.

    On an error `root` is left half full; the caller throws it away.

    Args:
        file: Open for reading, seekable; read from its beginning.
        url: The text to name in an error.

    Raises:
        ArchiveUnreadable: hostile, damaged, too large, or the disk is full.
            `details.reason` says which, in words.
    """
    try:
        root.mkdir(mode=0o700)
        size = file.seek(0, 2)
        file.seek(0)
        magic = file.read(4)
        file.seek(0)
        writer = MemberWriter(root, url, size, limits, should_stop)
        # What reads a format is imported with the first archive of it: a server whose
        # models are folders, modules, or in the cache already holds neither.
        if magic in _ZIP_MAGICS:
            from stoker.archives.unzip import unzip

            unzip(file, writer)
        else:
            from stoker.archives.untar import untar

            untar(file, root, writer, is_gzip=magic.startswith(_GZIP_MAGIC))
    except OSError as error:
        raise unreadable(url, f"cannot read or write: {error.strerror}") from None
    if writer.contents.files == 0:
        raise unreadable(url, "the archive is empty")
    return writer.contents
