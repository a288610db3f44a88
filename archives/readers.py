"""Letting a group read what was made for us alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

_READ: Final = 0o040
_READ_AND_PASS: Final = 0o050


def let_group_read(folder: Path, gid: int) -> None:
    """Everything in it, once: the folder itself is last, and says that the rest is done.

    Links are left as they are, and where they lead to is not ours to open.

    Raises:
        OSError: Something is not ours, or we may not give it to that group.
    """
    status = os.lstat(folder)
    if status.st_gid == gid and status.st_mode & _READ_AND_PASS == _READ_AND_PASS:
        return
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in files:
            path = os.path.join(parent, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode):
                os.chown(path, -1, gid, follow_symlinks=False)
                more = _READ_AND_PASS if mode & stat.S_IXUSR else _READ
                os.chmod(path, stat.S_IMODE(mode) | more)
        for name in folders:
            _let_enter(os.path.join(parent, name), gid)
    _let_enter(str(folder), gid)


def _let_enter(path: str, gid: int) -> None:
    mode = os.lstat(path).st_mode
    if stat.S_ISDIR(mode):
        os.chown(path, -1, gid, follow_symlinks=False)
        os.chmod(path, stat.S_IMODE(mode) | _READ_AND_PASS)
