"""Tests run two at a time, but for those that measure: these have the machine to themselves.

Most tests wait for processes, so `make test` runs two files at once.  A test
marked `alone` asserts what another test's load would spoil (CPU per request,
a share of what the machine can do); it begins when the other test has ended,
and the next one begins when it has.

Two locks, each a file: everybody takes the door before the room, and who wants
the room alone holds the door meanwhile, so that nobody overtakes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

__all__ = ["pytest_collection_modifyitems", "pytest_runtest_protocol"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files with tests that run alone come last, or one would wait for a minute's soak."""
    if _shares_the_machine(config):
        alone = {item.path for item in items if item.get_closest_marker("alone")}
        items.sort(key=lambda item: item.path in alone)


# Before the time limit of a test begins to count.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    if not _shares_the_machine(item.config):
        return (yield)
    # Every process of a run has its folder below the run's.
    folder = Path(item.config.option.basetemp).parent
    with turn(folder, is_alone=item.get_closest_marker("alone") is not None):
        return (yield)


def _shares_the_machine(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


@contextlib.contextmanager
def turn(folder: Path, *, is_alone: bool) -> Iterator[None]:
    """Wait for it, and have it."""
    with _opened(folder / "door") as door, _opened(folder / "room") as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Closing it gives the lock back; a child that was forked meanwhile must not keep it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)
