"""File locks that hold between threads and between processes, and end with their holder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_LOOK_AGAIN_S: Final = 0.02


class LockTimeout(Exception):
    """Somebody else held the lock until the deadline, or we were told to stop."""


def take_lock_nowait(path: Path) -> int | None:
    """Open and lock the file at `path` for us alone; None if somebody has it.

    The caller closes the descriptor, which frees the lock.  Whoever holds the
    lock may remove the file: a waiter that locked a removed one looks again.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError:
            os.close(handle)
            raise
        if _is_current(handle, path):
            return handle
        os.close(handle)


def take_lock(
    path: Path, *, timeout_s: float, should_stop: Callable[[], bool] = lambda: False
) -> int:
    """As `take_lock_nowait`, waiting for the holder to leave.

    Raises:
        LockTimeout
    """
    deadline = time.monotonic() + timeout_s
    while (handle := take_lock_nowait(path)) is None:
        if should_stop() or time.monotonic() >= deadline:
            raise LockTimeout(path.name)
        time.sleep(_LOOK_AGAIN_S)
    return handle


@contextmanager
def lock(
    path: Path, *, timeout_s: float, should_stop: Callable[[], bool] = lambda: False
) -> Iterator[int]:
    """Hold the lock at `path` for the length of a `with`."""
    handle = take_lock(path, timeout_s=timeout_s, should_stop=should_stop)
    try:
        yield handle
    finally:
        os.close(handle)


def _is_current(handle: int, path: Path) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = os.fstat(handle)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
