"""A download in progress: bytes on disk and what proves that more of the same can follow.

<cache_dir>/downloads/<sha256 of the url>.part   what has come so far
<cache_dir>/downloads/<sha256 of the url>.json   its validator
<cache_dir>/downloads/<sha256 of the url>.lock   held while one process loads it
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Final

#: A part nobody came back for is removed after this long.
MAX_AGE_S: Final = 7 * 24 * 3600.0
_READ_BYTES: Final = 1 << 20


class Partial:
    """The part file of one url, hashed as it grows.  Use under its lock, in a `with`."""

    def __init__(self, folder: Path, url: str) -> None:
        name = hashlib.sha256(url.encode()).hexdigest()
        self.path = folder / f"{name}.part"
        self.lock_path = folder / f"{name}.lock"
        self._notes_path = folder / f"{name}.json"

    def __enter__(self) -> Partial:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.fdopen(os.open(self.path, flags, 0o600), "r+b", buffering=0)
        self._digest = hashlib.sha256()
        self.size = 0
        self.validator = self._read_validator()
        if not self.validator:
            self.restart("")
        while chunk := self._file.read(_READ_BYTES):
            self._digest.update(chunk)
            self.size += len(chunk)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def restart(self, validator: str) -> None:
        """Throw the bytes away; those to come belong to `validator` ("" if there is none)."""
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.sha256()
        self.size = 0
        self.validator = validator
        self._notes_path.write_text(json.dumps({"validator": validator}))

    def append(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            view = view[self._file.write(view) or 0 :]
        self._digest.update(chunk)
        self.size += len(chunk)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def forget(self) -> None:
        """Remove everything but the lock, which is its holder's."""
        self.path.unlink(missing_ok=True)
        self._notes_path.unlink(missing_ok=True)

    def _read_validator(self) -> str:
        try:
            validator = json.loads(self._notes_path.read_bytes())["validator"]
        except (OSError, ValueError, KeyError, TypeError):
            return ""
        return validator if isinstance(validator, str) else ""


def clean_partials(folder: Path, now: float | None = None) -> None:
    """Remove parts that nobody came back for.  For the start of the server."""
    oldest = (time.time() if now is None else now) - MAX_AGE_S
    for path in folder.glob("*"):
        try:
            if path.suffix in (".part", ".json", ".lock") and path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)
        except OSError:
            continue
