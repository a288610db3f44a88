"""Writing an archive's members: a zip, a tarball or a folder.

The same members always give the same bytes: entries are sorted, times fixed,
modes plain.  So a content hash changes when, and only when, the content does.
"""

from __future__ import annotations

import gzip
import io
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ZIP: Final = "default"
ZIP_STORED: Final = "zip-store"
TGZ: Final = "tgz"
FOLDER: Final = "no-archive"
_SUFFIXES: Final = {ZIP: ".mar", ZIP_STORED: ".mar", TGZ: ".tar.gz", FOLDER: ""}

#: 1980-01-01, where a zip's calendar begins.
_MOMENT: Final = (1980, 1, 1, 0, 0, 0)
_MOMENT_UNIX: Final = 315532800


def target_of(export_path: Path, model_name: str, archive_format: str) -> Path:
    return export_path / f"{model_name}{_SUFFIXES[archive_format]}"


def write_archive(
    members: Mapping[str, Path | bytes], target: Path, model_name: str, archive_format: str
) -> None:
    """Write the members (archive name to file or content) in place of `target`.

    It appears whole, by a rename, or not at all.
    """
    with tempfile.TemporaryDirectory(prefix=".packing-", dir=target.parent) as aside:
        fresh = Path(aside) / target.name
        if archive_format == TGZ:
            _write_tgz(members, fresh, model_name)
        elif archive_format == FOLDER:
            _write_directory(members, fresh)
        else:
            is_stored = archive_format == ZIP_STORED
            _write_zip(members, fresh, zipfile.ZIP_STORED if is_stored else zipfile.ZIP_DEFLATED)
        if target.is_dir() and not target.is_symlink():
            target.rename(Path(aside) / "replaced")
        fresh.replace(target)


def _write_zip(members: Mapping[str, Path | bytes], target: Path, compression: int) -> None:
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, _MOMENT)
            info.compress_type = compression
            info.create_system = 3  # Unix, wherever we run
            info.external_attr = _mode(content) << 16
            if isinstance(content, bytes):
                archive.writestr(info, content)
                continue
            info.file_size = content.stat().st_size  # lets zipfile choose zip64 in time
            with content.open("rb") as source, archive.open(info, "w") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)


def _write_tgz(members: Mapping[str, Path | bytes], target: Path, top: str) -> None:
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, content in members.items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.mtime = _MOMENT_UNIX
            info.mode = _mode(content)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
                continue
            info.size = content.stat().st_size
            with content.open("rb") as source:
                archive.addfile(info, source)


def _write_directory(members: Mapping[str, Path | bytes], target: Path) -> None:
    for name, content in members.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            shutil.copyfile(content, path)
            path.chmod(_mode(content) & 0o777)


def _mode(content: Path | bytes) -> int:
    is_executable = isinstance(content, Path) and content.stat().st_mode & stat.S_IXUSR
    return stat.S_IFREG | (0o755 if is_executable else 0o644)
