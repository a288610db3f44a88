"""The keys of token authorization, as all HTTP processes of a server know them.

The file is the truth; every process holds a copy of what it says.  One page of
memory, shared since before the fork, counts the changes, so a renewed key
counts everywhere at once and an unchanged one costs a comparison of two
numbers.  A file that somebody else has edited is noticed within a second, and
at once when an unknown key is shown.

Whoever writes holds a lock on the runtime folder, reads what is there, and
replaces the file as a whole.

Source: contracts/torchserve.md 3.10, 11.
"""

from __future__ import annotations

import fcntl
import hmac
import math
import mmap
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from stoker.errors import SettingsError, StokerError
from stoker.key_file import (
    FILE_NAME,
    NAMES,
    Key,
    KeyFile,
    new_key,
    read_keys,
    stamp_of,
    write_keys,
)
from stoker.logs import get_logger
from stoker.settings import Settings

_BEARER: Final = re.compile(rb"Bearer\s+(\S+)")
_LOCK_WAIT_S: Final = 5.0
_LOCK_POLL_S: Final = 0.01

log = get_logger("access")


class KeysBusy(StokerError):
    """Somebody else is writing the keys and does not come to an end."""

    code = "keys_busy"
    retryable = True


class _Live(NamedTuple):
    """A key, ready to be compared with what a client sends."""

    header: bytes
    text: bytes
    expires_at: float


class Keyring:
    """Made and opened by the master, before it forks the processes that serve.

    Args:
        lifetime_s: How long a key made from now on is valid.
        lock_folder: A folder that only this server's processes lock.
        clock: The time of day, in seconds since the epoch.
    """

    def __init__(
        self,
        path: Path,
        lifetime_s: float,
        lock_folder: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self._lifetime_s = lifetime_s
        self._lock_folder = lock_folder
        self._clock = clock
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._changes = memoryview(self._page).cast("Q")
        self._seen = 0
        self._stamp: tuple[int, ...] | None = None
        self._keys: Mapping[str, Key] = {}
        self._live: Mapping[str, _Live] = {}

    def open(self) -> None:
        """Take the keys that are still valid from the file; make the others.

        Raises:
            SettingsError: The file is not ours to trust, or cannot be written.
        """
        with self._locked():
            try:
                found = read_keys(self.path)
            except FileNotFoundError:
                found = KeyFile({}, ())
            now = self._clock()
            kept = {name: key for name, key in found.keys.items() if not key.is_expired(now)}
            missing = [name for name in NAMES if name not in kept]
            if missing:
                made = {name: self._make(name) for name in missing}
                try:
                    self._write({**kept, **made})
                except OSError as error:
                    raise SettingsError(
                        f"key_file {self.path} cannot be written: {error.strerror}; "
                        "name a place for it with key_file",
                        setting="key_file",
                    ) from None
            else:
                self._adopt(found)
            if found.is_exposed and not missing:
                log.warning("others may read the keys: chmod 600", key_file=str(self.path))
        log.info("callers must show a key", key_file=str(self.path), new_keys=missing)

    def opens(self, name: str, credentials: bytes) -> bool:
        """Do these credentials (a whole Authorization header) hold the key of that name, now?"""
        if self._changes[0] != self._seen:
            self._seen = self._changes[0]
            self.reload()
        live = self._live.get(name)
        if live is not None and hmac.compare_digest(credentials, live.header):
            return self._clock() < live.expires_at
        return self._opens_after_all(name, credentials)

    def _opens_after_all(self, name: str, credentials: bytes) -> bool:
        """Not the usual spelling, or not the key: look closer, at the file too."""
        match = _BEARER.fullmatch(credentials.strip())
        if match is None:
            return False
        self.refresh()
        live = self._live.get(name)
        if live is None or not hmac.compare_digest(match[1], live.text):
            return False
        return self._clock() < live.expires_at

    def refresh(self) -> None:
        """Read the file again if it is not the one we know; about once a second."""
        if stamp_of(self.path) != self._stamp:
            self.reload()

    def reload(self) -> None:
        """Believe the file; where it says nothing sensible, what we knew stays."""
        try:
            self._adopt(read_keys(self.path))
        except FileNotFoundError:
            if self._stamp is not None:
                log.warning("the key file is gone; its keys stay valid", key_file=str(self.path))
            self._stamp = None
        except SettingsError as error:
            log.error("the key file was not read; older keys stay valid", reason=error.message)
            self._stamp = stamp_of(self.path)

    def renew(self, name: str) -> None:
        """Replace a key, at once and for all processes.  Blocks: not for the loop.

        An operator's key without an end gets a successor without an end.

        Raises:
            KeysBusy: Another process is writing.
            OSError, SettingsError: The file could not be written, or trusted.
        """
        with self._locked():
            try:
                known = read_keys(self.path).keys
            except FileNotFoundError:
                known = self._keys
            self._write({**known, name: self._make(name, known.get(name))})
            self._changes[0] += 1
        log.info("key renewed", key=name)

    def show(self, folder: Path) -> None:
        """Leave a link to the file where our own tools look for it."""
        link = folder / FILE_NAME
        if link != self.path:
            link.unlink(missing_ok=True)
            link.symlink_to(self.path)

    def hide(self, folder: Path) -> None:
        """Take the link away."""
        link = folder / FILE_NAME
        if link != self.path and link.is_symlink():
            link.unlink()

    def _make(self, name: str, old: Key | None = None) -> Key:
        is_endless = name == "API" or (old is not None and old.expires_at is None)
        return new_key(None if is_endless else self._clock() + self._lifetime_s)

    def _write(self, keys: Mapping[str, Key]) -> None:
        self._adopt(KeyFile(keys, write_keys(self.path, keys)))

    def _adopt(self, file: KeyFile) -> None:
        self._keys, self._stamp = file.keys, file.stamp
        self._live = {
            name: _Live(
                b"Bearer " + key.text.encode("ascii"),
                key.text.encode("ascii"),
                math.inf if key.expires_at is None else key.expires_at,
            )
            for name, key in file.keys.items()
        }

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # The folder itself: a lock file would have to stay for ever.
        folder = os.open(self._lock_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            until = time.monotonic() + _LOCK_WAIT_S
            while True:
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= until:
                        raise KeysBusy("The keys are being written; try again.") from None
                    time.sleep(_LOCK_POLL_S)
            yield
        finally:
            os.close(folder)


def open_keyring(settings: Settings) -> Keyring | None:
    """The keys of this server; None where callers are not asked for any.

    Raises:
        SettingsError, KeysBusy: see `Keyring.open`.
    """
    if settings.disable_token_authorization:
        return None
    path = settings.key_file or Path(FILE_NAME).absolute()
    keyring = Keyring(path, settings.token_expiration_min * 60, settings.runtime_dir)
    keyring.open()
    keyring.show(settings.runtime_dir)
    return keyring
