"""Making an archive of a handler and its files, in the peer's four formats.

The same parts always give the same bytes: entries are sorted, times fixed,
modes plain.  So a content hash changes when, and only when, the content does.

Source: contracts/torchserve.md 6.1, 6.2.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stoker import __version__
from stoker.archives.manifest import DEFAULT_VERSION, MANIFEST_PATH, parse_runtime
from stoker.errors import InvalidParameter
from stoker.names import check_model_name, check_version

#: Handlers that come with the server: no file goes into the archive.
BUILT_IN_HANDLERS: Final = frozenset(
    {
        "base_handler",
        "text_classifier",
        "image_classifier",
        "object_detector",
        "image_segmenter",
        "dali_image_classifier",
        "vllm_handler",
        "trt_llm_handler",
    }
)
FORMATS: Final = ("default", "zip-store", "tgz", "no-archive")

_SKIPPED: Final = frozenset({"__MACOSX", "__pycache__"})
#: 1980-01-01, where a zip's calendar begins.
_MOMENT: Final = (1980, 1, 1, 0, 0, 0)
_MOMENT_UNIX: Final = 315532800
_CREATED_ON: Final = "01/01/1980 00:00:00"


@dataclass(frozen=True, slots=True)
class Parts:
    """What goes into an archive; the names are those of the peer's archiver.

    Attributes:
        handler: A built-in name, or a python file, either with `:function`.
        extra_files: Files, or folders whose contents go to the archive's root.
        runtime: `python` or `python3`.
    """

    model_name: str
    handler: str
    version: str = DEFAULT_VERSION
    serialized_file: Path | None = None
    model_file: Path | None = None
    extra_files: tuple[Path, ...] = ()
    requirements_file: Path | None = None
    config_file: Path | None = None
    runtime: str = "python"


def pack(
    parts: Parts, export_path: Path, archive_format: str = "default", *, force: bool = False
) -> Path:
    """Write the archive into the folder `export_path` and return where it is.

    It appears whole, by a rename, or not at all.

    Raises:
        InvalidParameter: a part is missing, two have the same name, or the
            archive exists and `force` is not set.
        RuntimeInvalid
    """
    check_model_name(parts.model_name)
    check_version(parts.version)
    if archive_format not in FORMATS:
        raise _invalid("archive_format", f"must be one of {', '.join(FORMATS)}")
    suffix = {"tgz": ".tar.gz", "no-archive": ""}.get(archive_format, ".mar")
    target = export_path / f"{parts.model_name}{suffix}"
    if not export_path.is_dir():
        raise _invalid("export_path", "is not a folder")
    if os.path.lexists(target) and not force:
        raise _invalid("force", f"must be set to replace the existing {target.name}")
    members = _members(parts)
    with tempfile.TemporaryDirectory(prefix=".packing-", dir=export_path) as aside:
        fresh = Path(aside) / target.name
        if archive_format == "tgz":
            _write_tgz(members, fresh, parts.model_name)
        elif archive_format == "no-archive":
            _write_directory(members, fresh)
        else:
            is_stored = archive_format == "zip-store"
            _write_zip(members, fresh, zipfile.ZIP_STORED if is_stored else zipfile.ZIP_DEFLATED)
        if target.is_dir() and not target.is_symlink():
            target.rename(Path(aside) / "replaced")
        fresh.replace(target)
    return target


def manifest_of(parts: Parts) -> dict[str, Any]:
    """The MANIFEST.json of these parts."""
    named = {
        "serializedFile": parts.serialized_file,
        "modelFile": parts.model_file,
        "requirementsFile": parts.requirements_file,
        "configFile": parts.config_file,
    }
    handler_file, _, function = parts.handler.partition(":")
    handler = Path(handler_file).name + (f":{function}" if function else "")
    model: dict[str, Any] = {
        "modelName": parts.model_name,
        "handler": handler,
        "modelVersion": parts.version,
        **{key: path.name for key, path in named.items() if path is not None},
    }
    return {
        "createdOn": _CREATED_ON,
        "runtime": parse_runtime(parts.runtime),
        "model": model,
        "archiverVersion": __version__,
    }


def _invalid(parameter: str, what: str) -> InvalidParameter:
    return InvalidParameter(f"Parameter {parameter} {what}.", parameter=parameter)


# -- collecting ---------------------------------------------------------------


def _members(parts: Parts) -> Mapping[str, Path | bytes]:
    """Archive name to file (or bytes), sorted."""
    members: dict[str, Path | bytes] = {}

    def add(name: str, path: Path, parameter: str) -> None:
        known = members.setdefault(name, path)
        if known is not path and not (isinstance(known, Path) and known.samefile(path)):
            raise _invalid(parameter, f"brings a second file called {name}")

    files = {
        "serialized_file": parts.serialized_file,
        "model_file": parts.model_file,
        "handler": _handler_file(parts.handler),
        "requirements_file": parts.requirements_file,
        "config_file": parts.config_file,
    }
    for parameter, path in files.items():
        if path is None:
            continue
        if not path.is_file():
            raise _invalid(parameter, f"names {path.name}, which is not a file")
        add(path.name, path, parameter)
    for extra in parts.extra_files:
        if extra.is_file():
            add(extra.name, extra, "extra_files")
        elif extra.is_dir():
            for path in _files_below(extra):
                add(path.relative_to(extra).as_posix(), path, "extra_files")
        else:
            raise _invalid("extra_files", f"names {extra.name}, which does not exist")
    if MANIFEST_PATH in members:
        raise _invalid("extra_files", f"brings a {MANIFEST_PATH}, which is made here")
    members[MANIFEST_PATH] = json.dumps(manifest_of(parts), indent=2).encode()
    return dict(sorted(members.items()))


def _handler_file(handler: str) -> Path | None:
    name = handler.partition(":")[0]
    if name in BUILT_IN_HANDLERS:
        return None
    path = Path(name)
    # The peer's archiver takes `handler` for `handler.py`.
    return path if path.is_file() or path.suffix == ".py" else path.with_name(f"{path.name}.py")


def _files_below(folder: Path) -> list[Path]:
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _SKIPPED and name[0] != "."]
        found += [Path(root, name) for name in names]
    return sorted(path for path in found if path.is_file())


# -- writing ------------------------------------------------------------------


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
