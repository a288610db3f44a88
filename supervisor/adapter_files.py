"""Where the workers of a version keep what they know of its adapters (`worker/djl/adapters.py`).

The supervisor reads none of it.  It gives the file a name that no other server
and no other version has, and removes it when the version is gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from pathlib import Path
from typing import Final

_FOLDERS: Final = "stoker-adapters-*"
_CHARACTERS: Final = 16


def adapters_name(runtime_dir: Path, model: str, version: str) -> str:
    return f"{_hash(str(runtime_dir.absolute()))}-{_hash(f'{model}@{version}')}"


def remove_adapters(name: str) -> None:
    _remove(name)


def remove_all_adapters(runtime_dir: Path) -> None:
    """Of an earlier life of this server, which nobody goes on with."""
    _remove(f"{_hash(str(runtime_dir.absolute()))}-*")


def _remove(pattern: str) -> None:
    # A worker that is another user has a folder of its own.
    for path in Path(tempfile.gettempdir()).glob(f"{_FOLDERS}/{pattern}"):
        with contextlib.suppress(OSError):
            path.unlink()
            path.parent.rmdir()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_CHARACTERS]
