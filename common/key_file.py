"""`key_file.json`: the keys that callers must show, as TorchServe writes them.

    {"management": {"key": "...", "expiration time": "2024-02-16T21:12:24.801167Z"},
     "inference":  {"key": "...", "expiration time": "..."},
     "API":        {"key": "..."}}

A key without an expiration time never expires, so an operator may bring keys
of his own.  Nobody but us may be able to write the file: whoever can, is the
manager of this server.

Source: contracts/torchserve.md 3.10, 11.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from stoker.errors import SettingsError

MANAGEMENT: Final = "management"
INFERENCE: Final = "inference"
#: Opens nothing but the token API, which renews the other two.
API: Final = "API"
NAMES: Final = (MANAGEMENT, INFERENCE, API)

#: In the working directory, unless the setting `key_file` says otherwise; also
#: the name of a link to it in runtime_dir, where our own tools look.
FILE_NAME: Final = "key_file.json"

_EXPIRES: Final = "expiration time"
_MAX_FILE_BYTES: Final = 64 * 1024
#: What `Bearer` can carry; eight characters is what the peer's own keys have.
_KEY: Final = re.compile(r"[\x21-\x7e]{8,1024}")
_SECRET_BYTES: Final = 32
_LAST_INSTANT: Final = datetime.max.replace(tzinfo=UTC).timestamp() - 86400


@dataclass(frozen=True, slots=True)
class Key:
    """One key.  `expires_at`: seconds since the epoch; None is never."""

    text: str = field(repr=False)
    expires_at: float | None = None

    def is_expired(self, now: float) -> bool:
        return self.expires_at is not None and now >= self.expires_at


@dataclass(frozen=True, slots=True)
class KeyFile:
    """What the file said, and which file it was.

    Attributes:
        stamp: Differs whenever the file was written or replaced.
        is_exposed: Others than its owner may read it.
    """

    keys: Mapping[str, Key]
    stamp: tuple[int, ...]
    is_exposed: bool = False


def new_key(expires_at: float | None) -> Key:
    return Key(secrets.token_urlsafe(_SECRET_BYTES), expires_at)


def stamp_of(path: Path) -> tuple[int, ...] | None:
    """None when there is no file."""
    try:
        return _stamp(os.stat(path))
    except OSError:
        return None


def read_keys(path: Path) -> KeyFile:
    """The keys in the file; those it does not name are missing, not empty.

    Raises:
        FileNotFoundError: There is no file.
        SettingsError: It cannot be read, is not what it should be, or others may write it.
    """
    try:
        # Not blocking: somebody may have put a pipe there.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags), "rb") as file:
            about = os.fstat(file.fileno())
            content = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _bad(path, f"cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(about.st_mode):
        raise _bad(path, "is not a file")
    if about.st_uid not in (os.geteuid(), 0) or about.st_mode & 0o022:
        raise _bad(path, "can be changed by others; it must be ours, with mode 0600")
    if len(content) > _MAX_FILE_BYTES:
        raise _bad(path, "is too large")
    return KeyFile(_parse(path, content), _stamp(about), bool(about.st_mode & 0o044))


def write_keys(path: Path, keys: Mapping[str, Key]) -> tuple[int, ...]:
    """Replace the file as a whole, readable by us alone; returns its stamp.

    Raises:
        OSError: It could not be written; the old file is untouched.
    """
    document: dict[str, dict[str, str]] = {}
    for name in NAMES:
        if (key := keys.get(name)) is not None:
            document[name] = {"key": key.text}
            if key.expires_at is not None:
                document[name][_EXPIRES] = _instant(key.expires_at)
    real = Path(os.path.realpath(path))
    draft = real.with_name(f".{real.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)  # of a process that had our number and was killed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(draft, flags, 0o600), "w") as file:
            file.write(json.dumps(document, indent=2))
            file.flush()
            os.fchmod(file.fileno(), 0o600)
            os.fsync(file.fileno())
            written = _stamp(os.fstat(file.fileno()))
        draft.replace(real)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return written


def _parse(path: Path, content: bytes) -> dict[str, Key]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise _bad(path, "is not JSON; remove it to have it made anew") from None
    if not isinstance(document, dict):
        raise _bad(path, "is not a JSON object; remove it to have it made anew")
    return {name: _entry(path, name, document[name]) for name in NAMES if name in document}


def _entry(path: Path, name: str, entry: Any) -> Key:
    # Nothing of the entry may show: it is a secret even when it is malformed.
    text = entry.get("key") if isinstance(entry, dict) else None
    if not isinstance(text, str) or not _KEY.fullmatch(text):
        raise _bad(path, f"has no key of 8 to 1024 visible characters under {name!r}")
    if (expires := entry.get(_EXPIRES)) is None:
        return Key(text)
    try:
        instant = datetime.fromisoformat(expires)
        # A naive instant is the peer's `Z` forgotten.
        instant = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant
        return Key(text, instant.timestamp())
    except (ValueError, TypeError, OverflowError):
        raise _bad(path, f"has no readable {_EXPIRES!r} under {name!r}") from None


def _instant(seconds: float) -> str:
    at = datetime.fromtimestamp(min(seconds, _LAST_INSTANT), UTC)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _stamp(about: os.stat_result) -> tuple[int, ...]:
    return (about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size)


def _bad(path: Path, what: str) -> SettingsError:
    return SettingsError(f"key_file {path} {what}", setting="key_file")
