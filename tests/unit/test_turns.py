"""Tests that measure have the machine to themselves, and get it."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from facts import DEADLINE_S, wait_until
from turns import turn


class Runner:
    """One process of a run: it waits for its turn and keeps it until told to leave."""

    def __init__(self, folder: Path, *, is_alone: bool = False) -> None:
        self.has_turn = threading.Event()
        self._may_leave = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(folder, is_alone), daemon=True)
        self._thread.start()

    def leave(self) -> None:
        self._may_leave.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    def _run(self, folder: Path, is_alone: bool) -> None:
        with turn(folder, is_alone=is_alone):
            self.has_turn.set()
            assert self._may_leave.wait(DEADLINE_S)


@pytest.fixture
def enter(tmp_path: Path) -> Iterator[Callable[..., Runner]]:
    runners: list[Runner] = []

    def start(**about: bool) -> Runner:
        runners.append(Runner(tmp_path, **about))
        return runners[-1]

    yield start
    for runner in runners:
        runner.leave()


def is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_ordinary_tests_run_beside_each_other(enter: Callable[..., Runner]) -> None:
    """
    That is what two processes are for.
    """
    first, second = enter(), enter()

    assert first.has_turn.wait(DEADLINE_S)
    assert second.has_turn.wait(DEADLINE_S)


def test_one_that_measures_begins_when_nobody_is_there(enter: Callable[..., Runner]) -> None:
    """
    And nobody begins beside it.
    """
    ordinary = enter()
    assert ordinary.has_turn.wait(DEADLINE_S)
    alone = enter(is_alone=True)
    assert not alone.has_turn.wait(0.05)

    ordinary.leave()

    assert alone.has_turn.wait(DEADLINE_S)
    late = enter()
    assert not late.has_turn.wait(0.05)
    alone.leave()
    assert late.has_turn.wait(DEADLINE_S)


def test_nobody_overtakes_one_that_waits_to_be_alone(
    enter: Callable[..., Runner], tmp_path: Path
) -> None:
    """
    Or a row of short tests would keep it out until its run ends.
    """
    ordinary = enter()
    assert ordinary.has_turn.wait(DEADLINE_S)
    alone = enter(is_alone=True)
    wait_until(lambda: is_locked(tmp_path / "door"), "it waits to be alone")
    late = enter()
    assert not late.has_turn.wait(0.05)

    ordinary.leave()

    assert alone.has_turn.wait(DEADLINE_S)
    assert not late.has_turn.is_set()
