"""From a register request to everything the supervisor must know of a version.

    request -> `obtaining.py`: its files -> `reading.py`: what they say -> ResolvedArchive

Blocking: hashing, downloading and unpacking take as long as they take, so the
supervisor calls this from a thread.

Source: contracts/torchserve.md 3.1-3.4, 6.1-6.3; issue point 3.
"""

from __future__ import annotations

from pathlib import Path

from stoker.archives.archive import ArchiveRequest, ResolvedArchive
from stoker.archives.cache import ArchiveCache, directory_model
from stoker.archives.manifest import DEFAULT_RUNTIME, DEFAULT_VERSION, parse_runtime
from stoker.archives.members import unreadable
from stoker.archives.obtaining import PATIENT, ArchivePlaces, Terms, obtain
from stoker.archives.reading import read_archive
from stoker.archives.serving_properties import is_djl_folder
from stoker.errors import InvalidParameter
from stoker.names import check_model_name, check_version


def resolve(
    request: ArchiveRequest,
    places: ArchivePlaces,
    cache: ArchiveCache,
    terms: Terms = PATIENT,
) -> ResolvedArchive:
    """Find, fetch, unpack and read the archive of a register request.

    On success with a `content_hash` one use of that copy is counted; on an
    error none is.

    Raises:
        InvalidParameter, RuntimeInvalid: the request itself.
        ArchiveError: any of its kinds, about the archive.
    """
    if request.model:
        check_model_name(request.model)
    if request.version:
        check_version(request.version)
    runtime = parse_runtime(request.runtime) if request.runtime else None
    if request.url is None:
        return _without_archive(request, runtime)
    try:
        return _with_archive(request, runtime, request.url, places, cache, terms)
    except OSError as error:
        raise unreadable(request.url, f"the disk says: {error.strerror}") from None


def _with_archive(
    request: ArchiveRequest,
    runtime: str | None,
    url: str,
    places: ArchivePlaces,
    cache: ArchiveCache,
    terms: Terms,
) -> ResolvedArchive:
    path, content_hash = obtain(request, url, places, cache, terms)
    if content_hash is None:
        return read_archive(request, runtime, directory_model(path), None)
    try:
        return read_archive(request, runtime, _root(path), content_hash)
    except BaseException:
        cache.release(content_hash)
        raise


def _root(unpacked: Path) -> Path:
    """Where the model is: archives for DJL Serving may hold one folder with everything in it."""
    inner = directory_model(unpacked)
    return inner if is_djl_folder(inner) else unpacked


def _without_archive(request: ArchiveRequest, runtime: str | None) -> ResolvedArchive:
    if not request.handler:
        raise InvalidParameter("Parameter url is required.", parameter="url")
    if not request.model:
        raise InvalidParameter("Parameter model_name is required.", parameter="model_name")
    return ResolvedArchive(
        model=request.model,
        version=request.version or DEFAULT_VERSION,
        handler=request.handler,
        runtime=runtime or DEFAULT_RUNTIME,
        url="",
    )
