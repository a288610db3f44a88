"""The launcher's lock and pid file: who runs here, and is it really ours?

<runtime_dir>/launcher.lock   an flock, held while the launcher lives
<runtime_dir>/launcher.pid    JSON, replaced atomically; only true while the lock is held
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from stoker.process_start import start_ticks as start_ticks

MAX_FILE_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Running:
    """A launcher as its pid file tells.

    Attributes:
        start_ticks: When the process started, from /proc; with the pid it
            names one process for ever.
        children: Pids by role; a role that is down is missing.
    """

    pid: int
    start_ticks: int
    is_ready: bool = False
    addresses: dict[str, str] = field(default_factory=dict)
    children: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """Raises ValueError when a field is missing or odd."""
        try:
            found = cls(**document)
        except TypeError:
            raise ValueError("not a pid file") from None
        if not (isinstance(found.pid, int) and found.pid > 1):
            raise ValueError("not a pid")
        return found


class PidFile:
    """Held by a launcher from before its children start until after they have ended."""

    def __init__(self, folder: Path) -> None:
        self._lock = folder / "launcher.lock"
        self._path = folder / "launcher.pid"
        self._fd = -1

    def acquire_nowait(self) -> bool:
        """False when another launcher has it."""
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def write(self, running: Running) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(asdict(running)))
        new.replace(self._path)

    def release(self) -> None:
        if self._fd >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


def find_running(folder: Path) -> Running | None:
    """The launcher that lives in this runtime directory, checked three ways.

    A pid alone is not enough to send a signal to: the number may belong to
    somebody else by now.  The lock must be held, the process must have
    started when the file says, and its command line must be ours.
    """
    if not _is_locked(folder / "launcher.lock"):
        return None
    try:
        with (folder / "launcher.pid").open("rb") as file:
            running = Running.from_json(json.loads(file.read(MAX_FILE_BYTES)))
    except (OSError, ValueError):
        return None
    if start_ticks(running.pid) != running.start_ticks or not is_stoker(running.pid):
        return None
    return running


def is_stoker(pid: int) -> bool:
    """Does the command line say that this process is one of ours?"""
    try:
        return b"stoker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
