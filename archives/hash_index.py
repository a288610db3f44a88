"""Remembering the hash of archives that have not changed since it was computed.

Registering a model again, or starting the server with fifty of them, should
not read gigabytes to learn what is known.  A file is the same when its inode,
size and both times are; a file touched a moment ago is not remembered, since
it could change again within one tick of the file system's clock.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from stoker.archives.locks import LockTimeout, lock
from stoker.logs import get_logger

log = get_logger("archives")

MAX_ENTRIES: Final = 4096
_MAX_INDEX_BYTES: Final = 8 << 20
_CHUNK_BYTES: Final = 1 << 20
_LOCK_TIMEOUT_S: Final = 10.0
_HASH: Final = re.compile(r"[0-9a-f]{64}")


class HashingStopped(Exception):
    """`should_stop` said so."""


def hash_file(file: BinaryIO, should_stop: Callable[[], bool] = lambda: False) -> str:
    """SHA-256 of everything in `file`, as hex.

    Raises:
        HashingStopped
    """
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(_CHUNK_BYTES):
        if should_stop():
            raise HashingStopped
        digest.update(chunk)
    return digest.hexdigest()


def fingerprint(file: BinaryIO) -> str:
    """What changes whenever the open file's content does."""
    stat = os.fstat(file.fileno())
    times = f"{stat.st_mtime_ns}:{stat.st_ctime_ns}"
    return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{times}"


class HashIndex:
    """A small file of fingerprints and hashes.  Losing it costs time, nothing else."""

    def __init__(self, path: Path, *, settle_s: float = 1.0) -> None:
        self._path = path
        self._lock_path = path.with_suffix(".lock")
        self._settle_s = settle_s
        self.hashed = 0

    def hash_of(self, file: BinaryIO, should_stop: Callable[[], bool] = lambda: False) -> str:
        """SHA-256 of the open file, from memory where that is safe.

        Raises:
            HashingStopped
        """
        before = fingerprint(file)
        known = self._read().get(before)
        if known is not None:
            return known
        sha256 = hash_file(file, should_stop)
        self.hashed += 1
        stat = os.fstat(file.fileno())
        age_s = time.time() - max(stat.st_mtime, stat.st_ctime)
        if age_s >= self._settle_s and fingerprint(file) == before:
            self._remember(before, sha256)
        return sha256

    def _read(self) -> dict[str, str]:
        try:
            with self._path.open("rb") as file:
                entries = json.loads(file.read(_MAX_INDEX_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(entries, dict):
            return {}
        return {k: v for k, v in entries.items() if isinstance(v, str) and _HASH.fullmatch(v)}

    def _remember(self, key: str, sha256: str) -> None:
        try:
            with lock(self._lock_path, timeout_s=_LOCK_TIMEOUT_S):
                entries = self._read()
                entries.pop(key, None)
                entries[key] = sha256  # the newest is last
                kept = dict(list(entries.items())[-MAX_ENTRIES:])
                fresh = self._path.with_suffix(".new")
                fresh.write_text(json.dumps(kept))
                fresh.replace(self._path)
        except (OSError, LockTimeout) as error:
            log.warning("archive hash not remembered", error=str(error))
