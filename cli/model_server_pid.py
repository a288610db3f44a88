"""`<temporary folder>/.model_server.pid`: the one file by which `torchserve --stop` finds a server.

It holds a bare pid in a folder that everybody may write to, so nothing in it
is believed alone: the file must be ours, and so must the process.

Source: contracts/torchserve.md 9.1.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from stoker.cli.pid_file import is_stoker
from stoker.errors import SettingsError
from stoker.process_start import start_ticks

NAME: Final = ".model_server.pid"
_MAX_DIGITS: Final = 10


class ModelServerPid:
    """The pid file of the server that was started from here, if any."""

    def __init__(self, folder: Path | None = None) -> None:
        self.path = (folder or Path(tempfile.gettempdir())) / NAME

    def find(self) -> int | None:
        """The pid of a running server of ours; None when there is none.

        Raises:
            SettingsError: The file is somebody else's; TMPDIR names another folder.
        """
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._foreign(error.strerror) from None
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise self._foreign("it is not a file of ours")
            text = file.read(_MAX_DIGITS + 1).strip()
        if not text.isdigit() or len(text) > _MAX_DIGITS:
            return None
        pid = int(text)
        return pid if start_ticks(pid) is not None and is_stoker(pid) else None

    def write(self, pid: int) -> None:
        """Record a server; an old file of ours goes, anybody else's refuses.

        Raises:
            SettingsError: The file cannot be ours.
        """
        self.remove()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(self.path, flags, 0o644)
        except OSError as error:
            raise self._foreign(error.strerror) from None
        with open(fd, "w") as file:
            file.write(str(pid))

    def remove(self) -> None:
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise self._foreign(error.strerror) from None

    def _foreign(self, reason: str | None) -> SettingsError:
        return SettingsError(
            f"{self.path} cannot be used: {reason}; set TMPDIR to another folder",
            setting="TMPDIR",
        )
