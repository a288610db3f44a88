"""Desired state, durable before it is true: writes in order, off the loop.

A commit waits for the disk, which takes milliseconds, or seconds when the disk
is busy; so one thread writes, and the loop awaits it.  One change is under way
at a time (`changing`), from the look at what is there to the moment the engine
knows: nothing can come between, and an answer is only given to what is kept.

    async with journal.changing() as state:
        ...                                 # refuse what cannot be
        await journal.write(state.scaling(key, 1, 2))
        ...                                 # tell the engine

Source: issue "TorchServe's whole REST contract", point 4.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from stoker.errors import StateNotWritten
from stoker.logs import get_logger
from stoker.supervisor.desired import DesiredState, Edit
from stoker.supervisor.journal_file import JournalFile, StateRefused

log = get_logger("journal")

#: A disk that takes longer fails the call; what it was about to do is undone
#: as soon as the disk answers.
WRITE_DEADLINE_S: Final = 30.0
#: A stop does not wait longer for it.
CLOSE_DEADLINE_S: Final = 5.0
#: Changes that may wait for their turn.
MAX_WAITING: Final = 256


class Journal:
    """The desired state and the file that holds it.

    Args:
        open_file: Opens the file.  Called at the first write unless `read`
            came before: a server that is asked for nothing has no file.
    """

    def __init__(self, open_file: Callable[[], JournalFile]) -> None:
        self.state = DesiredState()
        self._open_file = open_file
        self._file: JournalFile | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._with_next: list[Edit] = []
        #: A write that did not return in time and may still happen.
        self._late: asyncio.Future[None] | None = None

    @property
    def is_open(self) -> bool:
        """There is a file: something was read or written."""
        return self._file is not None

    async def read(self) -> DesiredState:
        """Take over what the file says.  Raises StateRefused, StateNotWritten."""
        self.state = await asyncio.get_running_loop().run_in_executor(self._thread, self._read)
        return self.state

    def add_to_next_write(self, edit: Edit) -> None:
        """Nothing that is worth a write of its own."""
        self._with_next.append(edit)

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[DesiredState]:
        """Nobody else changes anything meanwhile.  Raises StateNotWritten."""
        if self._waiting >= MAX_WAITING:
            raise _late_error()
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            yield self.state
        finally:
            self._turn.release()

    async def write(self, edits: Sequence[Edit]) -> None:
        """Make a change durable, then make it in `state`; only inside `changing`.

        Raises:
            StateNotWritten: Nothing was changed.
        """
        edits = [*self._with_next, *edits]
        if not edits:
            return
        if self._late is not None:
            raise _late_error()
        loop = asyncio.get_running_loop()
        written = loop.run_in_executor(self._thread, self._write, edits)
        done, _ = await asyncio.wait({written}, timeout=WRITE_DEADLINE_S)
        if not done:
            log.error("state not written, the disk does not answer", waited_s=WRITE_DEADLINE_S)
            self._late = asyncio.ensure_future(self._undo(written))
            raise _late_error()
        error = written.exception()
        if error is not None:
            log.error("state not written", reason=str(error))
            raise error
        self._with_next.clear()
        self.state.apply(edits)

    async def try_to_write(self, edits: Sequence[Edit]) -> bool:
        """For who goes on without it: False where `write` says that nothing was changed."""
        try:
            await self.write(edits)
        except StateNotWritten:
            return False
        return True

    async def copy_to(self, path: Path) -> None:
        """Keep the file as it is now.  Raises StateNotWritten."""
        await asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: self._opened().copy_to(path)
        )

    async def close(self) -> None:
        if self._late is not None:
            self._late.cancel()
        closed = asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        await asyncio.wait({closed}, timeout=CLOSE_DEADLINE_S)
        self._thread.shutdown(wait=False)

    async def _undo(self, written: asyncio.Future[None]) -> None:
        """Those who asked were told that nothing has changed; see to it."""
        await asyncio.wait({written})
        loop = asyncio.get_running_loop()
        edits = self.state.edits()
        try:
            await loop.run_in_executor(self._thread, lambda: self._opened().replace(edits))
        except StateNotWritten as error:
            log.error("state not written", reason=error.message)
        self._late = None

    # -- in the thread --------------------------------------------------------

    def _opened(self) -> JournalFile:
        if self._file is None:
            self._file = self._open_file()
        return self._file

    def _read(self) -> DesiredState:
        return self._opened().read()

    def _write(self, edits: Sequence[Edit]) -> None:
        try:
            self._opened().write(edits)
        except StateRefused as refused:
            raise StateNotWritten(
                f"The state of the server cannot be written ({refused.reason}).",
                reason=refused.reason,
            ) from None

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _late_error() -> StateNotWritten:
    return StateNotWritten(
        "The state of the server cannot be written: the disk does not answer; nothing was changed.",
        reason="the disk does not answer",
    )
