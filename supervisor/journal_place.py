"""Where the desired state is kept, and what becomes of a file that cannot be used.

    <state_dir>/state.db         durable; restored by every later start
    <state_dir>/state.lock       held by the one supervisor that uses it
    <state_dir>/aside-<time>-<why>/   files taken out of use; nothing is ever deleted
    <runtime_dir>/state.db       not durable: `restore_state=off`, or no usable state_dir

Without a durable place everything else goes on, and the log says so: the state
then outlives the supervisor, not the server.

Source: issue "TorchServe's whole REST contract", point 4.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from stoker.errors import StateNotWritten
from stoker.logs import get_logger
from stoker.settings import Settings
from stoker.supervisor.desired import LAUNCH, PutFact
from stoker.supervisor.journal import Journal
from stoker.supervisor.journal_file import JournalFile, StateRefused

log = get_logger("journal")

FILE: Final = "state.db"
_LOCK: Final = "state.lock"
#: The log first: one that is left beside a new file could be replayed into it.
_PARTS: Final = ("-wal", "-shm", "-journal", "")


class JournalPlace:
    """The journal of this supervisor, opened and read; `close` leaves nothing behind.

    Attributes:
        goes_on: The same server used this state before, and did not stop: a
            crash is repaired.
    """

    def __init__(self, settings: Settings, launch: str) -> None:
        self._settings = settings
        self._launch = launch
        self._lock = -1
        self._is_durable = False
        self.goes_on = False

    async def open(self) -> Journal:
        settings = self._settings
        if settings.restore_state != "off":
            try:
                return await self._open_durable(settings.state_dir)
            except (OSError, StateNotWritten, StateRefused) as error:
                reason = error.strerror if isinstance(error, OSError) else error.args[0]
                log.warning(
                    "state is not kept: models registered by calls are gone after a stop",
                    state_dir=str(settings.state_dir),
                    reason=reason,
                )
        return await self._open_transient(settings.runtime_dir)

    def keep_aside(self, why: str) -> Path:
        """A folder for what is taken out of use now."""
        now = time.time()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)) + f"{int(now % 1 * 1000):03}"
        folder = self._settings.state_dir / f"aside-{stamp}-{why}"
        folder.mkdir(mode=0o700)
        return folder

    async def end(self, journal: Journal) -> None:
        """The server was told to stop: whoever uses the state next is another one."""
        if journal.is_open and not journal.state.is_empty:
            with suppress(StateNotWritten):
                async with journal.changing():
                    await journal.write([PutFact(LAUNCH, "")])

    def close(self) -> None:
        """After the journal is closed."""
        if not self._is_durable:
            for part in _PARTS:
                (self._settings.runtime_dir / (FILE + part)).unlink(missing_ok=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # -- durable --------------------------------------------------------------

    async def _open_durable(self, folder: Path) -> Journal:
        """Raises OSError, StateNotWritten, StateRefused: this place cannot be used."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._take_lock(folder / _LOCK)
        path = folder / FILE
        try:
            journal = await self._read(path)
            is_clean = self._settings.restore_state == "clean"
            if is_clean and not self.goes_on and not journal.state.is_empty:
                await journal.close()
                self._put_aside(path, "clean", "restore_state=clean")
                journal = await self._read(path)
        except BaseException:
            os.close(self._lock)
            self._lock = -1
            raise
        self._is_durable = True
        return journal

    def _take_lock(self, path: Path) -> None:
        """Raises OSError."""
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise OSError(0, "another supervisor keeps its state there") from None
        self._lock = handle

    async def _read(self, path: Path) -> Journal:
        """Raises StateNotWritten; StateRefused for what a later stoker wrote."""
        journal = self._journal(path, is_durable=True)
        # A server that never had state needs no file before there is some.
        if path.exists():
            try:
                await journal.read()
            except StateRefused as refused:
                await journal.close()
                if refused.kind == "newer":
                    raise
                aside = self._put_aside(path, refused.kind, refused.reason)
                log.error(
                    "stored state cannot be used; starting without it",
                    reason=refused.reason,
                    kept_as=str(aside),
                )
                journal = self._journal(path, is_durable=True)
            except BaseException:
                await journal.close()
                raise
        self._see_launch(journal)
        return journal

    def _put_aside(self, path: Path, why: str, reason: str) -> Path:
        """Raises OSError."""
        folder = self.keep_aside(why)
        for part in _PARTS:
            with suppress(FileNotFoundError):
                path.with_name(FILE + part).rename(folder / (FILE + part))
        log.warning("stored state put aside", reason=reason, kept_as=str(folder))
        return folder

    # -- transient ------------------------------------------------------------

    async def _open_transient(self, folder: Path) -> Journal:
        path = folder / FILE
        journal = self._journal(path, is_durable=False)
        if path.exists():
            with suppress(StateRefused, StateNotWritten):
                await journal.read()
            self._see_launch(journal)
            if not self.goes_on:
                # Of another start: its state has ended with it.
                await journal.close()
                for part in _PARTS:
                    path.with_name(FILE + part).unlink(missing_ok=True)
                journal = self._journal(path, is_durable=False)
        self._see_launch(journal)
        return journal

    def _journal(self, path: Path, *, is_durable: bool) -> Journal:
        return Journal(lambda: JournalFile(path, is_durable=is_durable))

    def _see_launch(self, journal: Journal) -> None:
        self.goes_on = journal.state.facts.get(LAUNCH) == self._launch
        if not self.goes_on:
            journal.add_to_next_write(PutFact(LAUNCH, self._launch))
