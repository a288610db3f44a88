"""Archives for the doctor, good and hostile, and a way to have one examined."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoker.archives.startup import StartupModel, name_from_url
from stoker.cli.doctor.archive import examine
from stoker.cli.doctor.findings import ArchiveReport
from stoker.settings import Settings


class Builder:
    """Makes archives out of texts."""

    handler = "class Handler:\n    def handle(self, data, context):\n        return data\n"

    @staticmethod
    def zip(members: dict[str, bytes]) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return buffer.getvalue()

    def mar(self, files: dict[str, bytes | str], **model: Any) -> bytes:
        """With these files and a manifest of the usual kind."""
        entry = {"modelName": "demo", "handler": "handler.py", "modelVersion": "1.0", **model}
        runtime = entry.pop("runtime", "python")
        manifest = {"runtime": runtime, "model": entry, "archiverVersion": "0.12.0"}
        members = {"MAR-INF/MANIFEST.json": json.dumps(manifest).encode()}
        for name, text in files.items():
            members[name] = text.encode() if isinstance(text, str) else text
        return self.zip(members)


@pytest.fixture
def build() -> Builder:
    return Builder()


@pytest.fixture
def diagnose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ArchiveReport]:
    """Put an archive into a store and have it examined; nothing of it may be left."""
    store, temporary = tmp_path / "store", tmp_path / "tmp"
    store.mkdir()
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    def do(content: bytes, name: str = "demo.mar", **settings: Any) -> ArchiveReport:
        (store / name).write_bytes(content)
        model = StartupModel(name, None, name_from_url(name))
        report = examine(model, Settings(model_store=store, **settings))
        assert list(temporary.iterdir()) == []
        return report

    return do
