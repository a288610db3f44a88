"""One SQLite file: what it refuses, what it survives."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest

from stoker.errors import StateNotWritten
from stoker.supervisor import journal_file
from stoker.supervisor.desired import DesiredState, DesiredVersion, PutFact
from stoker.supervisor.journal_file import APPLICATION_ID, JournalFile, StateRefused
from stoker.supervisor.journal_tables import LAYOUT, MIGRATIONS
from stoker.supervisor.versions import VersionKey


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def write(path: Path, *versions: str) -> None:
    """A file of ours with these versions of `m`, closed in order."""
    file = JournalFile(path)
    state = file.read()
    for version in versions:
        edits = state.registering(DesiredVersion("m", version, 1, 2))
        file.write(edits)
        state.apply(edits)
    file.close()


def versions(path: Path) -> list[str]:
    file = JournalFile(path)
    found = [key.version for key in file.read().versions]
    file.close()
    return found


def refusal(path: Path) -> StateRefused:
    before = path.read_bytes()
    with pytest.raises(StateRefused) as caught:
        JournalFile(path).read()
    assert path.read_bytes() == before, "what is refused is not touched"
    return caught.value


# -- what is refused -----------------------------------------------------------------


@pytest.mark.parametrize("content", [b"not a database at all", b"SQLite format 3\0", b"\0" * 5000])
def test_what_is_no_database_is_corrupt(path: Path, content: bytes) -> None:
    """
    SQLite would take an empty or a garbled file for one to be filled.
    """
    path.write_bytes(content)

    assert refusal(path).kind == "corrupt"


def test_a_page_that_was_overwritten_is_found_at_the_start(path: Path) -> None:
    """
    Better one clear word than half the models.
    """
    write(path, "1.0", "2.0")
    content = bytearray(path.read_bytes())
    content[4096:8192] = os.urandom(4096)
    path.write_bytes(content)

    assert refusal(path).kind == "corrupt"


@pytest.mark.parametrize("owner", [0, 0x1234])
def test_another_programs_database_is_not_ours(path: Path, owner: int) -> None:
    """
    A state_dir may be named by mistake.
    """
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.execute(f"PRAGMA application_id = {owner}")
    connection.commit()
    connection.close()

    assert refusal(path).kind == "foreign"


def test_a_later_layout_is_left_to_the_later_stoker(path: Path) -> None:
    """
    After going back to an older release.
    """
    write(path, "1.0")
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {LAYOUT + 1}")
    connection.close()

    refused = refusal(path)

    assert refused.kind == "newer"
    assert f"layout {LAYOUT + 1}" in refused.reason


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE versions SET model = '../../etc'",
        "UPDATE versions SET min_workers = -1",
        "UPDATE versions SET max_workers = 'many'",
        "UPDATE versions SET asked = '[1]'",
        "UPDATE versions SET asked = '{\"url\": {}}'",
        "UPDATE versions SET asked = 'x'",
        "UPDATE defaults SET version = '9.9'",
        "DELETE FROM defaults",
        "DELETE FROM versions",
    ],
)
def test_rows_that_make_no_sense_are_refused(path: Path, damage: str) -> None:
    """
    Somebody's shell, or a bug: nothing of it may reach a path or a process.
    """
    write(path, "1.0")
    connection = sqlite3.connect(path)
    connection.execute(damage)
    connection.commit()
    connection.close()

    assert refusal(path).kind == "corrupt"


def test_a_file_that_was_never_finished_is_begun_again(path: Path) -> None:
    """
    Killed between making the file and its tables.
    """
    path.touch()

    write(path, "1.0")

    assert versions(path) == ["1.0"]


# -- layouts -------------------------------------------------------------------------


def test_an_older_layout_is_brought_up_to_date(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An upgrade restores what the release before had stored.
    """
    write(path, "1.0")
    step = ("ALTER TABLE versions ADD COLUMN colour TEXT",)
    monkeypatch.setattr(journal_file, "MIGRATIONS", (*MIGRATIONS, step))
    monkeypatch.setattr(journal_file, "LAYOUT", LAYOUT + 1)

    found = versions(path)

    connection = sqlite3.connect(path)
    assert found == ["1.0"]
    assert connection.execute("PRAGMA user_version").fetchone() == (LAYOUT + 1,)
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert connection.execute("SELECT colour FROM versions").fetchall() == [(None,)]
    connection.close()


def test_a_migration_that_fails_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The release before must still be able to read it.
    """
    write(path, "1.0")
    steps = ("ALTER TABLE versions ADD COLUMN colour TEXT", "no SQL")
    with monkeypatch.context() as patch:
        patch.setattr(journal_file, "MIGRATIONS", (*MIGRATIONS, steps))
        patch.setattr(journal_file, "LAYOUT", LAYOUT + 1)
        with pytest.raises(StateNotWritten):
            JournalFile(path)

    assert versions(path) == ["1.0"]


# -- writing -------------------------------------------------------------------------


def test_a_commit_waits_for_the_disk(path: Path, tmp_path: Path) -> None:
    """
    `synchronous=FULL`; only what need not outlive the machine does without.
    """
    durable, transient = JournalFile(path), JournalFile(tmp_path / "t.db", is_durable=False)

    assert durable._pragma("journal_mode") == transient._pragma("journal_mode") == "wal"
    assert (durable._pragma("synchronous"), transient._pragma("synchronous")) == (2, 0)
    durable.close()
    transient.close()


def test_a_full_disk_fails_the_change_and_nothing_else(path: Path) -> None:
    """
    The next one goes through as soon as there is room.
    """
    file = JournalFile(path)
    state = file.read()
    pages = file._pragma("page_count")
    file._pragma("max_page_count", str(pages))
    long = {"url": "x" * 20_000}
    with pytest.raises(StateNotWritten) as caught:
        file.write(state.registering(DesiredVersion("m", "1.0", asked=long)))
    assert caught.value.details == {"reason": "database or disk is full"}
    assert caught.value.retryable
    assert file.read().edits() == []

    file._pragma("max_page_count", str(pages + 100))
    file.write(state.registering(DesiredVersion("m", "1.0", asked=long)))

    assert [key.version for key in file.read().versions] == ["1.0"]
    file.close()


def test_a_change_is_made_whole_or_not_at_all(path: Path) -> None:
    """
    A default without its version would be a third state.
    """
    file = JournalFile(path)
    state = DesiredState()
    edits = state.registering(DesiredVersion("m", "1.0"))
    bad = PutFact("x", None)  # type: ignore[arg-type]  # NOT NULL: refused in the middle

    with pytest.raises(StateNotWritten):
        file.write([*edits, bad])

    assert file.read().edits() == []
    file.write(edits)
    file.close()
    assert versions(path) == ["1.0"]


def test_a_copy_is_whole_and_refuses_to_overwrite(path: Path, tmp_path: Path) -> None:
    """
    What is put aside is never written over.
    """
    write(path, "1.0")
    file = JournalFile(path)
    file.write(file.read().unregistering(VersionKey("m", "1.0")))
    copy = tmp_path / "copy.db"

    file.copy_to(copy)

    with pytest.raises(StateNotWritten):
        file.copy_to(copy)
    file.close()
    assert versions(copy) == []


# -- a power cut ---------------------------------------------------------------------


def test_a_log_cut_off_anywhere_shows_a_state_that_was(tmp_path: Path) -> None:
    """
    What a power cut leaves of the last, unfinished write is not half a change.
    """
    folder = tmp_path / "whole"
    folder.mkdir()
    if (pid := os.fork()) == 0:
        # Dies with the log not yet folded into the file.
        file = JournalFile(folder / "state.db", is_durable=False)
        state = file.read()
        for number in range(6):
            edits = state.registering(DesiredVersion("m", str(number), asked={"url": "x" * 900}))
            file.write(edits)
            state.apply(edits)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    log = (folder / "state.db-wal").read_bytes()
    history = [[str(number) for number in range(count)] for count in range(7)]
    seen = []

    for length in range(0, len(log) + 1, 1031):
        cut = tmp_path / f"cut-{length}"
        shutil.copytree(folder, cut)
        (cut / "state.db-wal").write_bytes(log[:length])
        (cut / "state.db-shm").unlink(missing_ok=True)
        seen.append(versions(cut / "state.db"))
        shutil.rmtree(cut)

    assert all(state in history for state in seen)
    assert seen == sorted(seen, key=len), "the longer the log, the later the state"
    assert len({len(state) for state in seen}) > 4
    assert versions(folder / "state.db") == history[-1]
