"""The desired state in one SQLite file: read whole at the start, written edit by edit.

What is in it is drawn in `journal_tables.py`.  Blocking, for one thread at a
time.  `application_id` says that the file is ours and `user_version` which
layout it has.  With a write-ahead log and `synchronous=FULL` a commit has
reached the disk when it returns; the log is replayed by whoever opens the file
next, so a killed writer leaves nothing to repair.

`sqlite3` is imported where it is used: a server that is asked for nothing
durable never pays for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from stoker.errors import InvalidParameter, StateNotWritten
from stoker.supervisor.desired import (
    DesiredState,
    DropDefault,
    DropItem,
    DropVersion,
    DropWorkflow,
    Edit,
    PutDefault,
    PutFact,
    PutItem,
    PutVersion,
    PutWorkflow,
)
from stoker.supervisor.journal_tables import (
    LAYOUT,
    MIGRATIONS,
    PUT_VERSION,
    PUT_WORKFLOW,
    READ_VERSIONS,
    READ_WORKFLOWS,
    read_version,
    read_workflow,
    text_of,
    version_row,
    workflow_row,
)

#: "STKR", in the file's header.
APPLICATION_ID: Final = 0x53544B52
#: How long to wait for another program that holds the file (a person's shell).
BUSY_TIMEOUT_S: Final = 5.0
#: More is not ours: ten thousand versions take about 4 MiB.
MAX_FILE_BYTES: Final = 1 << 30

_MAGIC: Final = b"SQLite format 3\0"


class StateRefused(Exception):
    """A file that we cannot use as it is.

    Attributes:
        kind: "corrupt"; "foreign": another program's; "newer": of a later
            stoker, which knows what to do with it.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class JournalFile:
    """One open file.

    Args:
        is_durable: A commit waits for the disk.  False is for state that need
            only outlive a process.
    """

    def __init__(self, path: Path, *, is_durable: bool = True) -> None:
        """Raises StateRefused, and StateNotWritten when it cannot be made."""
        import sqlite3

        self.path = path
        _check_header(path)
        with _told_apart():
            self._connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        try:
            with _told_apart():
                # Nobody else is to use it, so it needs no shared memory: even
                # on a full disk it can be opened and read.
                self._pragma("locking_mode", "EXCLUSIVE")
                layout = self._check()
                self._set_up(is_durable)
                self._migrate(layout)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        self._connection.close()

    # -- reading --------------------------------------------------------------

    def read(self) -> DesiredState:
        """Raises StateRefused when a row cannot be ours."""
        with _told_apart():
            rows = self._connection.execute(READ_VERSIONS).fetchall()
            defaults = self._connection.execute("SELECT model, version FROM defaults").fetchall()
            items = self._connection.execute("SELECT item FROM items ORDER BY sequence").fetchall()
            facts = self._connection.execute("SELECT name, value FROM facts").fetchall()
            workflows = self._connection.execute(READ_WORKFLOWS).fetchall()
        try:
            state = DesiredState(PutVersion(read_version(row)) for row in rows)
            state.apply(PutItem(text_of(item)) for (item,) in items)
            state.apply(PutFact(text_of(name), text_of(value)) for name, value in facts)
            state.apply(PutWorkflow(read_workflow(row)) for row in workflows)
            state.apply(PutDefault(text_of(model), text_of(version)) for model, version in defaults)
        except (ValueError, InvalidParameter) as error:
            raise StateRefused("corrupt", f"a row makes no sense: {error}") from None
        if {*state.defaults.items()} - {*state.versions} or {
            key.model for key in state.versions
        } - {*state.defaults}:
            raise StateRefused("corrupt", "default versions and versions do not agree")
        return state

    # -- writing --------------------------------------------------------------

    def write(self, edits: Iterable[Edit]) -> None:
        """All of them or none; on the disk when this returns.

        Raises:
            StateNotWritten
        """
        with self._transaction():
            self._put(edits)

    def replace(self, edits: Iterable[Edit]) -> None:
        """Let the file say this and nothing else.  Raises StateNotWritten."""
        with self._transaction():
            for table in ("versions", "defaults", "items", "facts", "workflows"):
                self._connection.execute(f"DELETE FROM {table}")
            self._put(edits)

    def copy_to(self, path: Path) -> None:
        """Raises StateNotWritten."""
        try:
            with _told_apart():
                self._connection.execute("VACUUM INTO ?", (str(path),))
        except StateRefused as refused:
            raise _not_written(refused.reason) from None

    def _put(self, edits: Iterable[Edit]) -> None:
        execute = self._connection.execute
        for edit in edits:
            match edit:
                case PutVersion(version):
                    execute(PUT_VERSION, version_row(version))
                case DropVersion(key):
                    execute("DELETE FROM versions WHERE model = ? AND version = ?", key)
                case PutDefault():
                    execute("INSERT OR REPLACE INTO defaults VALUES (?, ?)", edit)
                case DropDefault():
                    execute("DELETE FROM defaults WHERE model = ?", edit)
                case PutItem():
                    execute("INSERT OR IGNORE INTO items (item) VALUES (?)", edit)
                case DropItem():
                    execute("DELETE FROM items WHERE item = ?", edit)
                case PutFact():
                    execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", edit)
                case PutWorkflow(workflow):
                    execute(PUT_WORKFLOW, workflow_row(workflow))
                case DropWorkflow(key):
                    execute("DELETE FROM workflows WHERE name = ? AND version = ?", key)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        import sqlite3

        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise _not_written(str(error)) from None
            raise

    # -- the file -------------------------------------------------------------

    def _check(self) -> int:
        """The layout of the file, 0 for one that is new.  Raises StateRefused."""
        owner = self._pragma("application_id")
        layout = int(self._pragma("user_version"))
        if owner == 0 and layout == 0:
            (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if tables == 0:
                return 0
        if owner != APPLICATION_ID:
            raise StateRefused("foreign", "it is another program's database")
        if layout > LAYOUT:
            raise StateRefused("newer", f"a later stoker wrote it (layout {layout})")
        said = self._pragma("quick_check")
        if said != "ok":
            raise StateRefused("corrupt", str(said))
        return layout

    def _set_up(self, is_durable: bool) -> None:
        # Where that cannot be SQLite stays with its rollback journal, which is
        # as durable and a little slower.
        self._pragma("journal_mode", "WAL")
        self._pragma("synchronous", "FULL" if is_durable else "OFF")

    def _migrate(self, layout: int) -> None:
        """Raises StateNotWritten."""
        if layout == LAYOUT:
            return
        with self._transaction():
            for statements in MIGRATIONS[layout:]:
                for statement in statements:
                    self._connection.execute(statement)
            self._pragma("application_id", str(APPLICATION_ID))
            self._pragma("user_version", str(LAYOUT))
        if layout == 0:
            _sync_folder(self.path.parent)

    def _pragma(self, name: str, value: str = "") -> Any:
        """Names and values are ours: pragmas take no parameters."""
        said = self._connection.execute(f"PRAGMA {name}{value and f' = {value}'}").fetchone()
        return said[0] if said else None


def _check_header(path: Path) -> None:
    """Refuse what SQLite need not even open: opening may change a file.

    The header may be older than the write-ahead log, so an absent owner says
    nothing yet.
    """
    try:
        with path.open("rb") as file:
            header = file.read(100)
            size_bytes = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return
    except OSError as error:
        raise StateRefused("foreign", f"it cannot be read: {error.strerror}") from None
    if size_bytes > MAX_FILE_BYTES:
        raise StateRefused("foreign", "it is too large to be ours")
    if not header:
        return
    if header[:16] != _MAGIC or len(header) < 100:
        raise StateRefused("corrupt", "it is no SQLite database")
    if int.from_bytes(header[68:72], "big") not in (0, APPLICATION_ID):
        raise StateRefused("foreign", "it is another program's database")


@contextmanager
def _told_apart() -> Iterator[None]:
    """A file that is broken is refused; a disk that is full is said to be so."""
    import sqlite3

    try:
        yield
    except sqlite3.OperationalError as error:
        raise _not_written(str(error)) from None
    except sqlite3.Error as error:
        raise StateRefused("corrupt", str(error)) from None


def _not_written(reason: str) -> StateNotWritten:
    return StateNotWritten(
        f"The state of the server cannot be written ({reason}); nothing was changed.",
        reason=reason,
    )


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
