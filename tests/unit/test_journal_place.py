"""Where state is kept, and what becomes of state that cannot be used."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoker.settings.load import load
from stoker.supervisor import journal_place
from stoker.supervisor.desired import DesiredVersion
from stoker.supervisor.journal_place import JournalPlace
from stoker.supervisor.journal_tables import LAYOUT


class Heard:
    """Stands in for the log."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def warning(self, event: str, **facts: Any) -> None:
        self.lines.append(("warning", event, facts))

    def error(self, event: str, **facts: Any) -> None:
        self.lines.append(("error", event, facts))

    @property
    def reasons(self) -> list[str]:
        return [facts["reason"] for _, _, facts in self.lines]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    log = Heard()
    monkeypatch.setattr(journal_place, "log", log)
    return log


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., list[str]]:
    """One life of a server: what it finds; then it registers a version and ends.

    A crash is an end without `close`.
    """
    for name in ("run", "state"):
        (tmp_path / name).mkdir(exist_ok=True)

    def run(
        register: str = "", *, launch: str = "a", crashes: bool = False, restore_state: str = "on"
    ) -> list[str]:
        flags = [
            *("--runtime-dir", str(tmp_path / "run"), "--state-dir", str(tmp_path / "state")),
            *("--restore-state", restore_state),
        ]

        async def main() -> list[str]:
            place = JournalPlace(load(flags, {}), launch)
            journal = await place.open()
            found = [key.version for key in journal.state.versions]
            if register:
                async with journal.changing() as state:
                    await journal.write(state.registering(DesiredVersion("m", register)))
            await journal.close()
            if crashes:
                os.close(place._lock) if place._lock >= 0 else None
            else:
                place.close()
            return found

        return asyncio.run(main())

    return run


def asides(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "state").glob("aside-*"))


def test_state_is_there_again_after_a_stop_and_after_a_crash(start: Any, heard: Heard) -> None:
    start("1.0")
    start("2.0", launch="b", crashes=True)

    assert start(launch="c") == ["1.0", "2.0"]
    assert heard.lines == []


def test_off_keeps_nothing_and_leaves_what_is_stored_alone(
    start: Any, heard: Heard, tmp_path: Path
) -> None:
    """
    TorchServe's --ncs; a later start without it finds what it left.
    """
    start("1.0")

    assert start("2.0", launch="b", restore_state="off") == []
    assert list((tmp_path / "run").iterdir()) == []
    assert start(launch="c", restore_state="off") == []
    assert start(launch="d") == ["1.0"]
    assert heard.lines == []


def test_off_still_repairs_a_crash(start: Any, tmp_path: Path) -> None:
    """
    The same server goes on: nobody has started another one.
    """
    start("1.0", launch="a", crashes=True, restore_state="off")

    assert start(launch="a", crashes=True, restore_state="off") == ["1.0"]
    assert start(launch="b", restore_state="off") == []
    assert list((tmp_path / "run").iterdir()) == []


def test_clean_puts_stored_state_aside_once_per_start(
    start: Any, heard: Heard, tmp_path: Path
) -> None:
    """
    Kept, so that a mistake can be undone; and a crash afterwards is no new start.
    """
    start("1.0")

    assert start("2.0", launch="b", crashes=True, restore_state="clean") == []
    assert start(launch="b", restore_state="clean") == ["2.0"]
    assert start(launch="c") == ["2.0"]
    (aside,) = asides(tmp_path)
    assert sqlite3.connect(aside / "state.db").execute("SELECT version FROM versions").fetchall()
    assert [event for _, event, _ in heard.lines] == ["stored state put aside"]


def test_corrupt_state_is_kept_aside_and_named(start: Any, heard: Heard, tmp_path: Path) -> None:
    """
    A server that does not start helps nobody; state that is deleted neither.
    """
    start("1.0")
    (tmp_path / "state" / "state.db").write_bytes(b"x" * 1000)

    assert start("2.0", launch="b") == []
    assert start(launch="c") == ["2.0"]
    (aside,) = asides(tmp_path)
    assert (aside / "state.db").read_bytes() == b"x" * 1000
    level, event, facts = heard.lines[-1]
    assert (level, event) == ("error", "stored state cannot be used; starting without it")
    assert facts == {"reason": "it is no SQLite database", "kept_as": str(aside)}


def test_what_belongs_to_another_program_is_kept_aside(
    start: Any, heard: Heard, tmp_path: Path
) -> None:
    connection = sqlite3.connect(tmp_path / "state" / "state.db")
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()

    assert start("1.0") == []
    assert start(launch="b") == ["1.0"]
    assert [path.name[-7:] for path in asides(tmp_path)] == ["foreign"]


def test_what_a_later_stoker_wrote_stays_for_it(start: Any, heard: Heard, tmp_path: Path) -> None:
    """
    Going back to an older release and forth again loses nothing.
    """
    start("1.0")
    file = tmp_path / "state" / "state.db"
    connection = sqlite3.connect(file)
    connection.execute(f"PRAGMA user_version = {LAYOUT + 1}")
    connection.close()

    assert start("2.0", launch="b") == []
    assert asides(tmp_path) == []
    connection = sqlite3.connect(file)
    connection.execute(f"PRAGMA user_version = {LAYOUT}")
    connection.close()
    assert start(launch="c") == ["1.0"]
    (reason,) = heard.reasons
    assert reason == f"a later stoker wrote it (layout {LAYOUT + 1})"


def test_without_a_writable_state_dir_it_works_and_says_so(
    start: Any, heard: Heard, tmp_path: Path
) -> None:
    """
    A container with a read-only file system; a crash of the supervisor is repaired even so.
    """
    (tmp_path / "state").rmdir()
    (tmp_path / "state").touch()

    assert start("1.0", crashes=True) == []
    assert start() == ["1.0"]
    assert start(launch="b") == []
    level, event, facts = heard.lines[0]
    assert level == "warning"
    assert event == "state is not kept: models registered by calls are gone after a stop"
    assert facts == {"state_dir": str(tmp_path / "state"), "reason": "File exists"}


def test_two_servers_do_not_share_a_state(start: Any, heard: Heard, tmp_path: Path) -> None:
    """
    Two runtime directories and one state_dir: the second one says that it keeps nothing.
    """
    flags = ["--runtime-dir", str(tmp_path / "other"), "--state-dir", str(tmp_path / "state")]
    (tmp_path / "other").mkdir()

    async def first() -> list[str]:
        place = JournalPlace(load(flags, {}), "z")
        journal = await place.open()
        found = await asyncio.to_thread(start, "1.0")
        await journal.close()
        place.close()
        return found

    assert asyncio.run(first()) == []
    assert heard.reasons == ["another supervisor keeps its state there"]
    assert start(launch="b") == []
