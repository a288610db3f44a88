"""Archives, good and hostile, built by hand."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MANIFEST = {
    "createdOn": "31/01/2024 12:00:00",
    "runtime": "python",
    "model": {"modelName": "demo", "handler": "handler.py", "modelVersion": "1.0"},
    "archiverVersion": "0.12.0",
}


def manifest_bytes(**model: Any) -> bytes:
    return json.dumps({**MANIFEST, "model": {**MANIFEST["model"], **model}}).encode()  # type: ignore[dict-item]


def zip_bytes(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tar_bytes(members: list[tuple[str | tarfile.TarInfo, bytes]], *, gz: bool = True) -> bytes:
    buffer = io.BytesIO()
    with tarfile.TarFile(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), mtime=0) if gz else buffer.getvalue()


class Archives:
    """The builders, for tests to ask for as a fixture."""

    manifest = staticmethod(manifest_bytes)
    zip = staticmethod(zip_bytes)
    tar = staticmethod(tar_bytes)

    @staticmethod
    def mar(handler: bytes = b"def handle(data, context): return data\n", **model: Any) -> bytes:
        return zip_bytes({"handler.py": handler, "MAR-INF/MANIFEST.json": manifest_bytes(**model)})


@pytest.fixture
def archives() -> Archives:
    return Archives()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    return path


@pytest.fixture
def tree() -> Callable[[Path], dict[str, bytes]]:
    """Everything below a folder: relative name to content."""

    def read(root: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }

    return read
