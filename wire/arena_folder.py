"""The folder of one server's arenas in /dev/shm: where it is, who may read it, clearing up.

Source: design section 3.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import zlib
from pathlib import Path
from typing import Final

from stoker.wire.runtime_dir import prepare_folder

_SHM: Final = Path("/dev/shm")
#: A folder in the arenas' folder, so that it is never empty.
_HOLD: Final = "held"
#: It may pass, and read what it is told of.
_FOR_A_GROUP: Final = 0o710


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
