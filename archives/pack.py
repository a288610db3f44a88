"""Making an archive of a handler and its files, in the peer's four formats.

The same parts always give the same bytes, see `archive_writer.py`.

Source: contracts/torchserve.md 6.1, 6.2.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stoker import __version__
from stoker.archives.archive_writer import (
    FOLDER,
    TGZ,
    ZIP,
    ZIP_STORED,
    target_of,
    write_archive,
)
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
FORMATS: Final = (ZIP, ZIP_STORED, TGZ, FOLDER)

_SKIPPED: Final = frozenset({"__MACOSX", "__pycache__"})
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
    target = target_of(export_path, parts.model_name, archive_format)
    if not export_path.is_dir():
        raise _invalid("export_path", "is not a folder")
    if os.path.lexists(target) and not force:
        raise _invalid("force", f"must be set to replace the existing {target.name}")
    write_archive(_members(parts), target, parts.model_name, archive_format)
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
