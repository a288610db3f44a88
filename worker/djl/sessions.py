"""What a handler keeps of a client between requests, where every worker of the model finds it.

Files, one folder per session; an id is checked before it becomes a name.

Source: contracts/djl-serving.md 15.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

EXPIRATION_S: Final = 1200.0
_SHARED: Final = Path("/dev/shm")
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KEY: Final = re.compile(r"[\w.-]{1,128}", re.ASCII)
_TOUCHED: Final = ".touched"


class Session:
    """One client's values, by name."""

    def __init__(self, session_id: str, folder: Path) -> None:
        self.session_id = session_id
        self._folder = folder

    def put(self, key: str, value: Any) -> None:
        """Bytes stay bytes; anything else is kept as JSON.  Raises ValueError for a bad key."""
        is_raw = isinstance(value, (bytes, bytearray))
        content = bytes(value) if is_raw else json.dumps(value).encode()
        beside = self._folder / f".{uuid.uuid4().hex}"
        beside.write_bytes((b"\0" if is_raw else b"\1") + content)
        beside.replace(self._path(key))

    def get(self, key: str, default: Any = None) -> Any:
        try:
            content = self._path(key).read_bytes()
        except FileNotFoundError:
            return default
        return content[1:] if content[:1] == b"\0" else json.loads(content[1:])

    def get_as_numpy(
        self, key: str, shape: Any = None, dtype: Any = "float32", create: bool = False
    ) -> Any:
        """An array in shared memory; None if there is none and none is to be made."""
        import numpy

        path = self._path(f"{key}.array")
        if not path.exists() and not create:
            return None
        mode = "r+" if path.exists() else "w+"
        return numpy.memmap(path, dtype=dtype, mode=mode, shape=shape)  # type: ignore[call-overload]

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key) or key.startswith("."):
            raise ValueError(f"a session cannot keep anything as {key!r}")
        return self._folder / key


class SessionManager:
    """All sessions of a model.

    Args:
        properties: `sessions_path` and `sessions_expiration` of the model's options.
    """

    def __init__(self, properties: Mapping[str, Any]) -> None:
        shared = _SHARED if os.access(_SHARED, os.W_OK) else Path(tempfile.gettempdir())
        default = shared / f"djl_sessions-{os.geteuid()}"
        self._root = Path(properties.get("sessions_path") or default)
        self._expiration_s = float(properties.get("sessions_expiration") or EXPIRATION_S)
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def create_session(self) -> Session:
        self._clean()
        session_id = str(uuid.uuid4())
        folder = self._root / session_id
        folder.mkdir(mode=0o700)
        (folder / _TOUCHED).touch()
        return Session(session_id, folder)

    def get_session(self, session_id: str) -> Session | None:
        """None if it has expired.  Raises ValueError for one that never was."""
        folder = self._folder(session_id)
        if self._is_expired(folder):
            shutil.rmtree(folder, ignore_errors=True)
            return None
        (folder / _TOUCHED).touch()
        return Session(session_id, folder)

    def close_session(self, session_id: str) -> None:
        """Raises ValueError for one that never was."""
        shutil.rmtree(self._folder(session_id), ignore_errors=True)

    def _folder(self, session_id: str) -> Path:
        folder = self._root / session_id
        if not _ID.fullmatch(session_id) or not folder.is_dir():
            raise ValueError(f"session not found: {session_id}")
        return folder

    def _is_expired(self, folder: Path) -> bool:
        try:
            touched_at = (folder / _TOUCHED).stat().st_mtime
        except OSError:
            return True
        return time.time() - touched_at > self._expiration_s

    def _clean(self) -> None:
        for folder in self._root.iterdir():
            if _ID.fullmatch(folder.name) and self._is_expired(folder):
                shutil.rmtree(folder, ignore_errors=True)
