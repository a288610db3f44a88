"""The log files of a server, and reading their ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Final

from stoker.names import check_model_name
from stoker.settings import Settings

#: Of a huge log, no more than this is read to find its last lines.
MAX_TAIL_BYTES: Final = 1 << 20


def server_log(settings: Settings) -> Path:
    """Where `stoker start` sends the output of all our processes."""
    return settings.log_dir / "stoker.log"


def model_logs(settings: Settings, model: str) -> list[Path]:
    """What the workers of a model printed, one file per version."""
    folder = settings.log_dir / "models" / check_model_name(model)
    return sorted(folder.glob("*.log"))


def last_lines(path: Path, count: int, begin: int = 0) -> list[str]:
    """The last lines of a file, none from before the offset `begin`."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(min(begin, size), size - MAX_TAIL_BYTES)
            file.seek(start)
            lines = file.read(MAX_TAIL_BYTES).decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
    return lines[-count:] if count > 0 else []


class Follower:
    """New text at the end of a file that may be rolled away and begun again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._open(at_end=True)

    def read_nowait(self) -> Iterator[bytes]:
        while self._file is not None and (piece := self._file.read(1 << 16)):
            yield piece
        if self._was_replaced():
            self.close()
            self._open(at_end=False)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, *, at_end: bool) -> None:
        try:
            self._file = self._path.open("rb", buffering=0)
        except FileNotFoundError:
            return
        if at_end and self._file is not None:
            self._file.seek(0, os.SEEK_END)

    def _was_replaced(self) -> bool:
        try:
            now = os.stat(self._path)
        except FileNotFoundError:
            return False
        if self._file is None:
            return True
        ours = os.fstat(self._file.fileno())
        is_cut = now.st_size < self._file.tell()
        return (now.st_dev, now.st_ino) != (ours.st_dev, ours.st_ino) or is_cut
