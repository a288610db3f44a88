"""Unpacked archives, one copy per content, shared by everything on this host.

    <cache_dir>/archives/<sha256>/model/         the unpacked archive
    <cache_dir>/archives/<sha256>/complete.json  how much there must be; written last
    <cache_dir>/archives/<sha256>.lock           held to build, to remove, and to start a use
    <cache_dir>/archives/<sha256>.use            shared lock of everyone who uses the copy
    <cache_dir>/archives/.unpack-<sha256>-<pid>-<n>   being built
    <cache_dir>/hashes.json                      see `hash_index`

A copy appears by one rename, so it is there whole or not at all.  Use is a
shared lock on its `.use` file: it keeps `prune` of any process away, and the
kernel gives it back when a process dies.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Final

from stoker.archives.hash_index import HashIndex, HashingStopped, fingerprint
from stoker.archives.locks import LockTimeout, lock, take_lock_nowait
from stoker.archives.members import Contents, UnpackLimits, unreadable
from stoker.archives.readers import let_group_read
from stoker.archives.unpack import unpack
from stoker.logs import get_logger

log = get_logger("archives")

_LEFTOVER: Final = re.compile(r"\.(?:unpack|trash)-([0-9a-f]{64})-\d+-\d+")
_ENTRY: Final = re.compile(r"[0-9a-f]{64}")
_LOCK_TIMEOUT_S: Final = 3600.0

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class CachedArchive:
    """One unpacked copy in use; give it back with `ArchiveCache.release(sha256)`."""

    sha256: str
    path: Path


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    entries_in_use: int
    unpacked: int
    shared: int


class ArchiveCache:
    """Owner of the cache folder's `archives/`.  Safe to call from several threads.

    Args:
        readers: A group that may read copies in use, if it knows their names.
    """

    def __init__(
        self,
        cache_dir: Path,
        limits: UnpackLimits | None = None,
        *,
        settle_s: float = 1.0,
        lock_timeout_s: float = _LOCK_TIMEOUT_S,
        readers: int | None = None,
    ) -> None:
        self._readers = readers
        self._root = cache_dir / "archives"
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._limits = limits or UnpackLimits()
        self._lock_timeout_s = lock_timeout_s
        self.hashes = HashIndex(cache_dir / "hashes.json", settle_s=settle_s)
        self._mutex = threading.Lock()
        #: sha256 -> [uses, the descriptor that holds the shared lock]
        self._uses: dict[str, list[int]] = {}
        self._unpacked = 0
        self._shared = 0

    def acquire(
        self,
        file: BinaryIO,
        url: str,
        *,
        sha256: str | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> CachedArchive:
        """Return the unpacked copy of the archive in `file`, unpacking it if nobody has yet.

        Args:
            file: A real file, open for reading.
            url: The text to name in an error.
            sha256: The hash of the content, if the caller knows it for sure.

        Raises:
            ArchiveUnreadable: see `unpack`; also when the file changes under us.
        """
        before = fingerprint(file)
        try:
            sha256 = sha256 or self.hashes.hash_of(file, should_stop)
        except HashingStopped:
            raise unreadable(url, "reading was stopped") from None
        except OSError as error:
            raise unreadable(url, f"cannot read: {error.strerror}") from None
        with self._mutex:
            if (shared := self._share(sha256)) is not None:
                return shared
        try:
            with lock(
                self._lock_path(sha256), timeout_s=self._lock_timeout_s, should_stop=should_stop
            ):
                if not self._is_whole(sha256):
                    self._build(sha256, file, url, before, should_stop)
                return self._use(sha256)
        except LockTimeout:
            raise unreadable(url, "another process is unpacking it and does not end") from None

    def find(
        self, sha256: str, *, should_stop: Callable[[], bool] = lambda: False
    ) -> CachedArchive | None:
        """Return the copy of that content for use, or None if there is no whole one."""
        if not _ENTRY.fullmatch(sha256):
            return None
        with self._mutex:
            if (shared := self._share(sha256)) is not None:
                return shared
        if not self._entry(sha256).is_dir():
            return None
        try:
            with lock(
                self._lock_path(sha256), timeout_s=self._lock_timeout_s, should_stop=should_stop
            ):
                return self._use(sha256) if self._is_whole(sha256) else None
        except LockTimeout:
            return None

    def release(self, sha256: str) -> None:
        """End one use.  The copy stays until `prune` wants its room."""
        with self._mutex:
            use = self._uses.get(sha256)
            if use is None:
                return
            use[0] -= 1
            if use[0] > 0:
                return
            del self._uses[sha256]
            os.close(use[1])
        try:
            os.utime(self._marker(sha256))  # prune goes by the last use
        except OSError:
            pass

    def prune(self, max_bytes: int) -> int:
        """Remove copies nobody uses, least recently used first, until `max_bytes` are left.

        Copies in use count towards the sum but are never removed.

        Returns:
            How many bytes were freed.
        """
        entries = []
        for entry in self._root.iterdir():
            if _ENTRY.fullmatch(entry.name) and (contents := self._marked(entry.name)):
                used_at = self._marker(entry.name).stat().st_mtime_ns
                entries.append((used_at, entry.name, contents.total_bytes))
        total = sum(size for _, _, size in entries)
        freed = 0
        for _, sha256, size in sorted(entries):
            if total - freed <= max_bytes:
                break
            if self._remove(sha256):
                freed += size
                log.info("archive copy removed", sha256=sha256, freed_bytes=size)
        return freed

    def clean(self) -> None:
        """Remove what a killed predecessor left half done.  For the start of the server."""
        for path in list(self._root.iterdir()):
            leftover = _LEFTOVER.fullmatch(path.name)
            if leftover is None:
                continue
            handle = take_lock_nowait(self._lock_path(leftover[1]))
            if handle is not None:  # else its builder is alive
                shutil.rmtree(path, ignore_errors=True)
                os.close(handle)

    def statistics(self) -> CacheStatistics:
        with self._mutex:
            return CacheStatistics(len(self._uses), self._unpacked, self._shared)

    # -- below: one entry ---------------------------------------------------

    def _entry(self, sha256: str) -> Path:
        return self._root / sha256

    def _path(self, sha256: str) -> Path:
        return self._root / sha256 / "model"

    def _marker(self, sha256: str) -> Path:
        return self._root / sha256 / "complete.json"

    def _lock_path(self, sha256: str) -> Path:
        return self._root / f"{sha256}.lock"

    def _use_path(self, sha256: str) -> Path:
        return self._root / f"{sha256}.use"

    def _aside(self, kind: str, sha256: str) -> Path:
        return self._root / f".{kind}-{sha256}-{os.getpid()}-{next(_numbers)}"

    def _share(self, sha256: str) -> CachedArchive | None:
        """One more use of what this process uses already; the mutex is held."""
        use = self._uses.get(sha256)
        if use is None:
            return None
        use[0] += 1
        self._shared += 1
        return CachedArchive(sha256, self._path(sha256))

    def _use(self, sha256: str) -> CachedArchive:
        """Start a use; the lock of the entry is held, so nobody is removing it."""
        with self._mutex:
            if (shared := self._share(sha256)) is not None:
                return shared
            handle = self._open_use(sha256)
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                os.close(handle)
                raise
            if self._readers is not None:
                let_group_read(self._entry(sha256), self._readers)
            self._uses[sha256] = [1, handle]
            return CachedArchive(sha256, self._path(sha256))

    def _open_use(self, sha256: str) -> int:
        return os.open(self._use_path(sha256), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _marked(self, sha256: str) -> Contents | None:
        try:
            marked = json.loads(self._marker(sha256).read_bytes())
            return Contents(int(marked["files"]), int(marked["total_bytes"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _is_whole(self, sha256: str) -> bool:
        """Is everything there?  After a power cut, files can be shorter than they were written.

        Handlers may add files of their own, so there may be more, never less.
        """
        marked = self._marked(sha256)
        if marked is None:
            return False
        files = total_bytes = 0
        for folder, _, names in os.walk(self._path(sha256)):
            for name in names:
                files += 1
                total_bytes += os.lstat(os.path.join(folder, name)).st_size
        return files >= marked.files and total_bytes >= marked.total_bytes

    def _build(
        self,
        sha256: str,
        file: BinaryIO,
        url: str,
        before: str,
        should_stop: Callable[[], bool],
    ) -> None:
        """Unpack into a folder aside and move it in place; the lock is held."""
        building = self._aside("unpack", sha256)
        try:
            building.mkdir(mode=0o700)
            contents = unpack(file, building / "model", url, self._limits, should_stop)
            if fingerprint(file) != before:
                raise unreadable(url, "the file changed while it was read")
            with (building / "complete.json").open("wb") as marker:
                marker.write(json.dumps(asdict(contents)).encode())
                marker.flush()
                os.fsync(marker.fileno())
            self._discard(sha256)
            building.rename(self._entry(sha256))
        except OSError as error:
            raise unreadable(url, f"cannot write: {error.strerror}") from None
        finally:
            shutil.rmtree(building, ignore_errors=True)
        self._sync_root()
        self._unpacked += 1
        log.info(
            "archive unpacked", sha256=sha256, files=contents.files, bytes=contents.total_bytes
        )

    def _remove(self, sha256: str) -> bool:
        """Remove an entry unless somebody builds or uses it."""
        handle = take_lock_nowait(self._lock_path(sha256))
        if handle is None:
            return False
        try:
            use = self._open_use(sha256)
            try:
                fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._discard(sha256)
                self._use_path(sha256).unlink(missing_ok=True)
                self._lock_path(sha256).unlink(missing_ok=True)
            finally:
                os.close(use)
        except BlockingIOError:
            return False
        except OSError as error:
            log.warning("archive copy not removed", sha256=sha256, error=str(error))
            return False
        finally:
            os.close(handle)
        return True

    def _discard(self, sha256: str) -> None:
        entry = self._entry(sha256)
        if entry.exists():
            trash = self._aside("trash", sha256)
            entry.rename(trash)
            shutil.rmtree(trash, ignore_errors=True)

    def _sync_root(self) -> None:
        handle = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def directory_model(path: Path) -> Path:
    """The folder a directory registration means: the inner one if it holds nothing else (3.2.6)."""
    entries = list(itertools.islice(path.iterdir(), 2))
    if len(entries) == 1 and entries[0].is_dir() and not entries[0].is_symlink():
        return entries[0]
    return path
