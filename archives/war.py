"""Workflow archives (`.war`), as the peer's workflow archiver makes them.

    WAR-INF/MANIFEST.json   createdOn, archiverVersion, workflow{workflowName, specFile, handler}
    <specFile>              models and graph (`war_spec.py`)
    <handler>               the functions
    ...                     whatever else they need

Blocking, as `resolve.py` is.

Source: contracts/torchserve.md 4.1.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stoker import __version__
from stoker.archives.archive import ArchiveRequest
from stoker.archives.cache import ArchiveCache
from stoker.archives.members import BadMember, member_parts, unreadable
from stoker.archives.obtaining import PATIENT, ArchivePlaces, Terms, obtain
from stoker.archives.war_spec import WarSpec, read_war_spec
from stoker.archives.yaml_document import BadYaml, read_yaml
from stoker.errors import InvalidParameter, WorkflowInvalid
from stoker.names import check_model_name

MANIFEST_PATH: Final = "WAR-INF/MANIFEST.json"
_MAX_MANIFEST_BYTES: Final = 1 << 20
_CREATED_ON: Final = "01/01/1980 00:00:00"
_MOMENT: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class WorkflowArchive:
    """A workflow, ready to be registered.

    Attributes:
        handler: File with the functions, inside `folder`; None when there is none.
        content_hash: Names the unpacked copy that this uses; None for a folder.
    """

    name: str
    url: str
    folder: Path
    handler: str | None
    spec: WarSpec
    content_hash: str | None = None


def resolve_war(
    request: ArchiveRequest,
    places: ArchivePlaces,
    cache: ArchiveCache,
    terms: Terms = PATIENT,
) -> WorkflowArchive:
    """Find, fetch, unpack and read a workflow archive.

    On success with a `content_hash` one use of that copy is counted.

    Args:
        places: With the workflow store for the model store.

    Raises:
        InvalidParameter: No url, or an impossible name.
        ArchiveError: any of its kinds, about the archive.
        WorkflowInvalid, GraphInvalid: What is in it.
    """
    url = request.url
    if url is None:
        raise InvalidParameter("Parameter url is required.", parameter="url")
    try:
        folder, content_hash = obtain(request, url, places, cache, terms)
    except OSError as error:
        raise unreadable(url, f"the disk says: {error.strerror}") from None
    try:
        return _read(request, url, folder, content_hash)
    except BaseException:
        if content_hash is not None:
            cache.release(content_hash)
        raise


def _read(
    request: ArchiveRequest, url: str, folder: Path, content_hash: str | None
) -> WorkflowArchive:
    manifest = _read_manifest(folder, url)
    workflow = manifest["workflow"]
    name = check_model_name(request.model or workflow["workflowName"])
    spec_file = _file(folder, workflow.get("specFile"), "specFile", url)
    if spec_file is None:
        raise WorkflowInvalid("Workflow specification is not defined.", url=url)
    try:
        document, _ = read_yaml(folder / spec_file)
    except BadYaml as error:
        raise WorkflowInvalid(f"The workflow specification {error}.", url=url) from None
    spec = read_war_spec(document, url)
    handler = _file(folder, workflow.get("handler"), "handler", url)
    if handler is None and any(node.is_function for node in spec.nodes):
        raise WorkflowInvalid("Workflow handler is not defined.", url=url)
    return WorkflowArchive(name, url, folder, handler, spec, content_hash)


def _read_manifest(folder: Path, url: str) -> dict[str, Any]:
    """Raises WorkflowInvalid, with the peer's words for what is missing."""
    try:
        with (folder / MANIFEST_PATH).open("rb") as file:
            manifest: dict[str, Any] = json.loads(file.read(_MAX_MANIFEST_BYTES + 1))
    except FileNotFoundError:
        raise WorkflowInvalid("Missing manifest file in workflow archive.", url=url) from None
    except (OSError, ValueError, RecursionError):
        raise WorkflowInvalid("Failed to parse signature.json.", url=url) from None
    workflow = manifest.get("workflow") if isinstance(manifest, dict) else None
    if not isinstance(workflow, dict):
        raise WorkflowInvalid("Missing Workflow entry in manifest file.", url=url)
    for value, what in (
        (workflow.get("workflowName"), "Workflow name"),
        (manifest.get("archiverVersion"), "Workflow archive version"),
        (manifest.get("createdOn"), "Workflow archive createdOn"),
    ):
        if not isinstance(value, str) or not value:
            raise WorkflowInvalid(f"{what} is not defined.", url=url)
    return manifest


def _file(folder: Path, name: Any, entry: str, url: str) -> str | None:
    """A file that the manifest names; it must lie inside the archive."""
    if name is None or name == "":
        return None
    try:
        path = folder.joinpath(*member_parts(str(name))).resolve()
        is_inside = folder.resolve() in path.parents
    except (BadMember, OSError, ValueError, RuntimeError):
        is_inside = False
    if not is_inside:
        raise WorkflowInvalid(f"The manifest's {entry} leads out of the archive.", url=url)
    if not path.is_file():
        raise WorkflowInvalid(f"The manifest's {entry} is not in the archive.", url=url)
    return str(name)


# -- making one -----------------------------------------------------------------


def pack_war(
    name: str,
    spec_file: Path,
    handler: Path | None,
    export_path: Path,
    extra_files: tuple[Path, ...] = (),
    *,
    force: bool = False,
) -> Path:
    """Write `{name}.war` into a folder and return where it is; whole, or not at all.

    Raises:
        InvalidParameter: A file is missing, or the archive exists and `force` is not set.
    """
    check_model_name(name)
    target = export_path / f"{name}.war"
    if target.exists() and not force:
        raise _wrong("force", f"must be set to replace the existing {target.name}")
    files = [path for path in (spec_file, handler, *extra_files) if path is not None]
    for path in files:
        if not path.is_file():
            raise _wrong("extra_files", f"names {path.name}, which is not a file")
    if len({path.name for path in files}) < len(files):
        raise _wrong("extra_files", "brings a second file of the same name")
    workflow = {"workflowName": name, "specFile": spec_file.name}
    if handler is not None:
        workflow["handler"] = handler.name
    manifest = {
        "createdOn": _CREATED_ON,
        "archiverVersion": __version__,
        "workflow": workflow,
    }
    members = {path.name: path.read_bytes() for path in files}
    members[MANIFEST_PATH] = json.dumps(manifest, indent=2).encode()
    # Only here: servers read such archives, and few make one.
    import tempfile
    import zipfile

    with tempfile.TemporaryDirectory(prefix=".packing-", dir=export_path) as aside:
        fresh = Path(aside) / target.name
        with zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in sorted(members.items()):
                info = zipfile.ZipInfo(member, _MOMENT)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = 0o644 << 16
                archive.writestr(info, content)
        fresh.replace(target)
    return target


def _wrong(parameter: str, what: str) -> InvalidParameter:
    return InvalidParameter(f"Parameter {parameter} {what}.", parameter=parameter)
