"""The runtime directory: closed to others, held by one supervisor, with our sockets in it.

Folder mode and lock keep strangers and second servers out (design section 3).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from stoker.errors import SettingsError

#: `sun_path` holds 108 bytes including the NUL; zmq truncates silently.
MAX_PATH_BYTES: Final = 100


class FolderInUse(SettingsError):
    """Another supervisor holds this runtime directory."""

    code = "runtime_dir_in_use"


def prepare_folder(folder: Path, *, may_be_passed: bool = False) -> None:
    """Make `folder` exist, ours, and closed to everybody else.

    Args:
        may_be_passed: Where workers are another user, they may go through it, and not look.

    Raises:
        SettingsError: It belongs to somebody else or is not a directory.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise SettingsError(
            f"runtime_dir {folder} is not a directory of ours; name another one.",
            setting="runtime_dir",
        )
    if stat.S_IMODE(status.st_mode) & (0o066 if may_be_passed else 0o077):
        os.chmod(folder, 0o700)


class FolderLock:
    """An flock on the runtime directory: a second bind would steal a socket's path silently."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "supervisor.lock"
        self._fd = -1

    def acquire(self) -> None:
        """Raises FolderInUse when another process holds it."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise FolderInUse(
                    f"Another supervisor is running in {self._path.parent}; "
                    "stop it or give this one its own runtime_dir.",
                    setting="runtime_dir",
                ) from None
            raise
        self._fd = fd

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def frontend_address(folder: Path) -> str:
    """Where frontends ask the supervisor, as zmq wants it."""
    return f"ipc://{_checked(folder / 'frontend.sock')}"


def answers_address(folder: Path) -> str:
    """Where frontends are answered; see `downlink.py`."""
    return f"unix:{_checked(folder / 'answers.sock')}"


def worker_folder(folder: Path) -> Path:
    """Holds the workers' socket and nothing else, so that they need not see the rest.

    A sandbox shows the folder, not the socket: a successor makes a new one.
    """
    return folder / "workers"


def worker_address(folder: Path) -> str:
    """Where workers find the supervisor; see `stream.py`."""
    return f"unix:{_checked(worker_folder(folder) / 'worker.sock')}"


def _checked(path: Path) -> Path:
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise SettingsError(
            f"runtime_dir is too long for a Unix socket: {path.parent}; name a shorter one.",
            setting="runtime_dir",
        )
    return path
