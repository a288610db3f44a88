"""Making an archive of a folder as Multi Model Server's archiver does it.

All of the folder goes in, its handler among the rest; what an editor, Python
or an earlier run left there does not.

Source: contracts/mms.md 9.3, 9.6.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from stoker.archives.archive_writer import FOLDER, TGZ, ZIP, target_of, write_archive
from stoker.archives.manifest import (
    DEFAULT_RUNTIME,
    LEGACY_PATH,
    MANIFEST_PATH,
    parse_runtime,
)
from stoker.errors import InvalidParameter
from stoker.names import check_model_name

FORMATS: Final = (ZIP, TGZ, FOLDER)

_SKIPPED_FOLDERS: Final = frozenset({"__MACOSX", "__pycache__"})
_SKIPPED_NAME: Final = ".DS_Store"
_SKIPPED_SUFFIXES: Final = (".pyc", ".mar")
#: Of the layout, not of any program: the peer writes the same for all three.
_VERSIONS: Final = {
    "modelServerVersion": "1.0",
    "implementationVersion": "1.0",
    "specificationVersion": "1.0",
}


@dataclass(frozen=True, slots=True)
class MmsParts:
    """What goes into an archive; the names are those of the peer's archiver.

    Attributes:
        model_path: The folder that holds the handler and all that it needs.
        handler: `module`, `module.py` or `module:function` (10.1), not looked for.
    """

    model_name: str
    model_path: Path
    handler: str
    runtime: str = DEFAULT_RUNTIME


def pack_folder(
    parts: MmsParts, export_path: Path, archive_format: str = ZIP, *, force: bool = False
) -> Path:
    """Write the archive into the folder `export_path` and return where it is.

    It appears whole, by a rename, or not at all.

    Raises:
        InvalidParameter: A name, folder or file that cannot be; the archive exists
            and `force` is not set; it would take the place of its own source.
        RuntimeInvalid: A Python that nobody has here.
        OSError: What cannot be read or written.
    """
    check_model_name(parts.model_name)
    if archive_format not in FORMATS:
        raise InvalidParameter(
            f"Parameter archive_format must be one of {', '.join(FORMATS)}.",
            parameter="archive_format",
        )
    manifest = json.dumps(manifest_of(parts), indent=2).encode()
    for parameter, folder in (("model_path", parts.model_path), ("export_path", export_path)):
        if not folder.is_dir():
            raise InvalidParameter(
                f"Parameter {parameter} names {folder}, which is not a folder.",
                parameter=parameter,
            )
    target = target_of(export_path, parts.model_name, archive_format)
    if os.path.lexists(target) and not force:
        raise InvalidParameter(f"{target} already exists.", parameter="force")
    source = parts.model_path.resolve()
    if target.resolve() in (source, *source.parents):
        # Replacing it would take away what was skipped, or all of it.
        raise InvalidParameter(
            f"{target} holds the model itself; name another folder with --export-path.",
            parameter="export_path",
        )
    members: dict[str, Path | bytes] = {**_files_below(source, target.resolve())}
    members[MANIFEST_PATH] = manifest
    write_archive(dict(sorted(members.items())), target, parts.model_name, archive_format)
    return target


def manifest_of(parts: MmsParts) -> dict[str, Any]:
    """The MANIFEST.json of these parts.  Raises RuntimeInvalid."""
    return {
        "runtime": parse_runtime(parts.runtime),
        "model": {"modelName": parts.model_name, "handler": parts.handler},
        **_VERSIONS,
    }


def _files_below(source: Path, target: Path) -> Mapping[str, Path]:
    """Name in the archive to file; `target`, from an earlier run, may lie there, too."""
    found = {}
    for root, folders, names in os.walk(source, onerror=_stop):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and name not in _SKIPPED_FOLDERS
            and Path(root, name) != target
        ]
        for name in names:
            path = Path(root, name)
            inside = path.relative_to(source).as_posix()
            if (
                name != _SKIPPED_NAME
                and not name.endswith(_SKIPPED_SUFFIXES)
                and inside != LEGACY_PATH
                and path != target
            ):
                if not path.is_file():
                    raise InvalidParameter(
                        f"{path} cannot be packed: it is not a file.", parameter="model_path"
                    )
                found[inside] = path
    return found


def _stop(error: OSError) -> NoReturn:
    """A folder that cannot be read must not be left out in silence."""
    raise error
