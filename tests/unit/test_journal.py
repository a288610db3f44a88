"""Durable first, in order, and off the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from stoker.errors import StateNotWritten
from stoker.supervisor import journal as journal_module
from stoker.supervisor.desired import DesiredVersion, PutFact
from stoker.supervisor.journal import Journal
from stoker.supervisor.journal_file import JournalFile
from stoker.supervisor.versions import VersionKey

Scenario = Callable[[Journal], Coroutine[Any, Any, Any]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def play(path: Path) -> Callable[[Scenario], Any]:
    """Run a scenario with a journal of its own, closed at the end."""

    def run(scenario: Scenario) -> Any:
        async def main() -> Any:
            journal = Journal(lambda: JournalFile(path))
            try:
                return await scenario(journal)
            finally:
                await journal.close()

        return asyncio.run(main())

    return run


def names(path: Path) -> list[str]:
    file = JournalFile(path)
    found = [key.version for key in file.read().versions]
    file.close()
    return found


async def register(journal: Journal, version: str) -> None:
    async with journal.changing() as state:
        await journal.write(state.registering(DesiredVersion("m", version)))


def test_a_server_that_is_asked_for_nothing_has_no_file(path: Path, play: Any) -> None:
    """
    It pays for neither the library nor the disk.
    """

    async def scenario(journal: Journal) -> None:
        journal.add_to_next_write(PutFact("launch", "1"))

    play(scenario)

    assert not path.exists()


def test_what_is_written_is_there_and_what_waited_goes_with_it(path: Path, play: Any) -> None:
    """
    A fact that is not worth a write of its own costs none.
    """

    async def scenario(journal: Journal) -> None:
        journal.add_to_next_write(PutFact("launch", "1"))
        await register(journal, "1.0")
        assert journal.state.facts == {"launch": "1"}

    play(scenario)

    assert names(path) == ["1.0"]


def test_changes_happen_one_after_the_other_in_the_order_they_came(path: Path, play: Any) -> None:
    """
    Nothing comes between the look at what is there and the moment the engine knows.
    """
    order: list[str] = []

    async def change(journal: Journal, version: str) -> None:
        async with journal.changing() as state:
            order.append(f"look {version}")
            await journal.write(state.registering(DesiredVersion("m", version)))
            order.append(f"done {version}")

    async def scenario(journal: Journal) -> None:
        await asyncio.gather(*(change(journal, str(number)) for number in range(20)))

    play(scenario)

    expected = [f"{what} {number}" for number in range(20) for what in ("look", "done")]
    assert order == expected
    assert names(path) == [str(number) for number in range(20)]


def test_the_loop_turns_while_the_disk_is_slow(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Predictions do not wait for somebody's registration.
    """
    release = threading.Event()
    write = JournalFile.write

    def slow(file: JournalFile, edits: Any) -> None:
        assert release.wait(20)
        write(file, edits)

    monkeypatch.setattr(JournalFile, "write", slow)

    async def scenario(journal: Journal) -> int:
        registering = asyncio.ensure_future(register(journal, "1.0"))
        turns = 0
        while turns < 100:
            await asyncio.sleep(0)
            turns += 1
        assert not registering.done()
        release.set()
        await registering
        return turns

    assert play(scenario) == 100


def test_a_change_that_fails_is_not_made(
    path: Path, play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Neither in the file nor here; and the next one is.
    """
    write = JournalFile.write

    def full(file: JournalFile, edits: Any) -> None:
        raise StateNotWritten("full", reason="full")

    async def scenario(journal: Journal) -> None:
        await register(journal, "1.0")
        journal.add_to_next_write(PutFact("launch", "1"))
        monkeypatch.setattr(JournalFile, "write", full)
        with pytest.raises(StateNotWritten):
            await register(journal, "2.0")
        assert list(journal.state.versions) == [VersionKey("m", "1.0")]
        monkeypatch.setattr(JournalFile, "write", write)
        await register(journal, "3.0")
        assert journal.state.facts == {"launch": "1"}

    play(scenario)

    assert names(path) == ["1.0", "3.0"]


def test_a_write_that_comes_too_late_is_undone(
    path: Path, play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Who asked was told that nothing has changed; so nothing has.
    """
    release = threading.Event()
    write = JournalFile.write

    def stuck(file: JournalFile, edits: Any) -> None:
        assert release.wait(20)
        write(file, edits)

    async def scenario(journal: Journal) -> None:
        await register(journal, "1.0")
        # Only what is stuck is short of time; a disk may be slow.
        with monkeypatch.context() as impatient:
            impatient.setattr(journal_module, "WRITE_DEADLINE_S", 0.05)
            impatient.setattr(JournalFile, "write", stuck)
            for version in ("2.0", "3.0"):
                with pytest.raises(StateNotWritten, match="does not answer"):
                    await register(journal, version)
        release.set()
        while journal._late is not None:
            await asyncio.sleep(0.001)
        assert names_of(journal) == ["1.0"]
        await register(journal, "4.0")

    def names_of(journal: Journal) -> list[str]:
        assert journal._file is not None
        return [key.version for key in journal._file.read().versions]

    play(scenario)

    assert names(path) == ["1.0", "4.0"]


def test_those_who_wait_for_their_turn_are_bounded(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Every queue has a bound.
    """
    monkeypatch.setattr(journal_module, "MAX_WAITING", 2)

    async def scenario(journal: Journal) -> None:
        async with journal.changing():
            waiting = [asyncio.ensure_future(register(journal, str(n))) for n in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(StateNotWritten):
                await register(journal, "3.0")
        await asyncio.gather(*waiting)

    play(scenario)


def test_a_file_that_turns_out_to_be_unusable_fails_the_change(path: Path, play: Any) -> None:
    """
    Somebody may put another file there while the server runs.
    """
    path.write_bytes(b"no database")

    async def scenario(journal: Journal) -> None:
        with pytest.raises(StateNotWritten, match="no SQLite database"):
            await register(journal, "1.0")
        assert journal.state.is_empty

    play(scenario)
