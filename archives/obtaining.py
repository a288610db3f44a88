"""The unpacked files of an archive, from wherever they come: the store, the cache, an address.

Source: contracts/torchserve.md 3.1-3.4, 6.1-6.3; issue point 3.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from stoker.archives.archive import ArchiveRequest
from stoker.archives.cache import ArchiveCache, CachedArchive
from stoker.archives.fetch import FetchLimits, FetchRequest, Progress, failed, fetched
from stoker.archives.location import (
    THE_STORE,
    LocalDirectory,
    LocalFile,
    Location,
    Remote,
    admits_everything,
    locate,
    locate_store,
)
from stoker.archives.members import UnpackLimits
from stoker.archives.partial import clean_partials
from stoker.archives.s3_signature import S3Credentials
from stoker.errors import ArchiveError, ArchiveNotFound
from stoker.logs import get_logger

log = get_logger("archives")


class ArchiveElsewhere(ArchiveError):
    """It would have to be fetched, and whoever asks cannot wait.  Reaches no client."""


@dataclass(frozen=True, slots=True)
class ArchivePlaces:
    """Where archives may come from, and how much of them we take."""

    model_store: Path | None
    cache_dir: Path
    allowed_urls: tuple[str, ...] = ()
    fetch_limits: FetchLimits = field(default_factory=FetchLimits)
    unpack_limits: UnpackLimits = field(default_factory=UnpackLimits)

    @property
    def downloads_dir(self) -> Path:
        return self.cache_dir / "downloads"


class Terms(NamedTuple):
    """On which terms somebody wants an archive.

    Attributes:
        may_fetch: False when there is no time for a download now: one that
            would be needed is `ArchiveElsewhere`.
        progress: Told (bytes, total or None) of a download, at most once a
            second and at its end.  Called in this thread.
        should_stop: Asked all along; True ends it with the step's error.
        environment: Where `s3_sse_kms` finds its credentials; os.environ if None.
    """

    may_fetch: bool = True
    progress: Progress = lambda done, total: None
    should_stop: Callable[[], bool] = lambda: False
    environment: Mapping[str, str] | None = None


PATIENT: Final = Terms()


def open_cache(places: ArchivePlaces, readers: int | None = None) -> ArchiveCache:
    """The cache of these places, with what a killed predecessor left cleaned away.

    Args:
        readers: As in `ArchiveCache`.
    """
    if admits_everything(places.allowed_urls):
        log.warning("allowed_urls admits every address: whoever may register may run code")
    cache = ArchiveCache(places.cache_dir, places.unpack_limits, readers=readers)
    cache.clean()
    clean_partials(places.downloads_dir)
    return cache


def obtain(
    request: ArchiveRequest, url: str, places: ArchivePlaces, cache: ArchiveCache, terms: Terms
) -> tuple[Path, str | None]:
    """The unpacked files of an archive, and the hash under which one use of them is counted.

    None stands for a folder, which is used as it lies there.

    Raises:
        ArchiveError: any of its kinds.
    """
    location = _locate(request, url, places)
    if isinstance(location, LocalDirectory):
        return location.path, None
    copy = None
    if request.known_hash:
        copy = cache.find(request.known_hash, should_stop=terms.should_stop)
    if copy is None:
        if isinstance(location, ArchiveNotFound):
            raise location
        if isinstance(location, Remote) and not terms.may_fetch:
            raise ArchiveElsewhere("The archive is not here; it must be fetched.", url=url)
        copy = _copy(request, location, places, cache, terms)
    return copy.path, copy.sha256


def _locate(request: ArchiveRequest, url: str, places: ArchivePlaces) -> Location | ArchiveNotFound:
    """Where the archive is; one that left the store but may be in the cache is no error yet."""
    if request.takes_store and url == THE_STORE:
        return locate_store(places.model_store)
    try:
        return locate(url, places.model_store, places.allowed_urls)
    except ArchiveNotFound as error:
        if not request.known_hash:
            raise
        return error


def _copy(
    request: ArchiveRequest,
    location: LocalFile | Remote,
    places: ArchivePlaces,
    cache: ArchiveCache,
    terms: Terms,
) -> CachedArchive:
    url, should_stop = request.url or "", terms.should_stop
    if isinstance(location, LocalFile):
        with location.path.open("rb") as file:
            return cache.acquire(file, url, should_stop=should_stop)
    credentials = _credentials(url, terms.environment) if request.s3_sse_kms else None
    log.info("download started", host=urlsplit(location.url).netloc)
    wanted = FetchRequest(location.url, url, places.allowed_urls, credentials)
    with (
        fetched(
            wanted,
            places.downloads_dir,
            places.fetch_limits,
            progress=terms.progress,
            should_stop=should_stop,
        ) as download,
        download.path.open("rb") as file,
    ):
        log.info("download complete", bytes=download.size_bytes, sha256=download.sha256)
        return cache.acquire(file, url, sha256=download.sha256, should_stop=should_stop)


def _credentials(url: str, environment: Mapping[str, str] | None) -> S3Credentials:
    found = S3Credentials.from_environment(os.environ if environment is None else environment)
    if found is None:
        raise failed(
            url, "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_DEFAULT_REGION must be set"
        )
    return found
