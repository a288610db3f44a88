"""From a register request to everything the supervisor must know of a version.

Blocking: hashing, downloading and unpacking take as long as they take, so the
supervisor calls this from a thread.

Source: contracts/torchserve.md 3.1-3.4, 6.1-6.3; issue point 3.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from stoker.archives.cache import ArchiveCache, CachedArchive, directory_model
from stoker.archives.engines import BUILT_IN, check_engine, check_options, detect_engine
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
from stoker.archives.manifest import (
    DEFAULT_RUNTIME,
    DEFAULT_VERSION,
    TORCHSERVE,
    Manifest,
    parse_runtime,
    read_manifest,
)
from stoker.archives.members import BadMember, UnpackLimits, member_parts, unreadable
from stoker.archives.model_config import ModelConfig, read_model_config
from stoker.archives.partial import clean_partials
from stoker.archives.s3_signature import S3Credentials
from stoker.archives.serving_properties import (
    DEFAULT_FUNCTION,
    ServingProperties,
    is_djl_folder,
    read_serving_properties,
)
from stoker.errors import (
    ArchiveError,
    ArchiveNotFound,
    EngineUnknown,
    InvalidParameter,
    ManifestInvalid,
)
from stoker.logs import get_logger
from stoker.names import check_model_name, check_version

log = get_logger("archives")

#: Whose handlers an archive has.
DJL: Final = "djl"
#: A function of a workflow in its notation.
DJL_FUNCTION: Final = "djl_function"


class ArchiveElsewhere(ArchiveError):
    """It would have to be fetched, and whoever asks cannot wait.  Reaches no client."""


@dataclass(frozen=True, slots=True)
class ArchiveRequest:
    """What a register request says about its archive.  None: it does not say.

    Attributes:
        default_model: The name if neither request nor manifest has one; set
            at start-up only, from the file's name (6.2).
        default_handler: `default_service_handler` of the settings.
        engine: What DJL Serving's clients call the runtime.
        takes_store: The configuration asks, which may mean the whole model store (`.`).
        known_hash: The content's hash from an earlier registration.  If that
            copy is still whole it is used as it is, without asking the origin:
            a restart needs no network and sees the very same files.
    """

    url: str | None = None
    model: str | None = None
    handler: str | None = None
    runtime: str | None = None
    version: str | None = None
    s3_sse_kms: bool = False
    default_model: str | None = None
    default_handler: str = ""
    engine: str | None = None
    takes_store: bool = False
    known_hash: str | None = None


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


@dataclass(frozen=True, slots=True)
class ResolvedArchive:
    """One version, ready to be registered.

    Attributes:
        url: The text as given; "" without an archive.
        model_dir: None when the handler comes from PYTHONPATH alone.
        manifest: The raw document; None when there is none.
        contract: Whose handlers it has: `torchserve`, `mms`, `djl` or `djl_function`.
        config: None when the archive has no model-config.yaml and no serving.properties.
        content_hash: Names the copy in the cache that this uses; hand it to
            `ArchiveCache.release` when the version is gone.  None for a
            directory and for no archive.
        requirements_file: Inside model_dir; None when not named or not there.
        environment: Names what `supervisor.environments` has made for it; "" for nothing.
        python: The interpreter of its workers; "" for the server's own.
        packages_dir: Where its requirements are installed, apart from a venv.
        warnings: For the log; nothing in it is secret.
    """

    model: str
    version: str
    handler: str
    runtime: str
    url: str
    model_dir: Path | None = None
    manifest: dict[str, Any] | None = None
    envelope: str | None = None
    contract: str = TORCHSERVE
    config: ModelConfig | None = None
    config_raw: dict[str, Any] = field(default_factory=dict)
    content_hash: str | None = None
    requirements_file: Path | None = None
    environment: str = ""
    python: str = ""
    packages_dir: Path | None = None
    warnings: tuple[str, ...] = ()


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


def resolve(
    request: ArchiveRequest,
    places: ArchivePlaces,
    cache: ArchiveCache,
    *,
    may_fetch: bool = True,
    progress: Progress = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
    environment: Mapping[str, str] | None = None,
) -> ResolvedArchive:
    """Find, fetch, unpack and read the archive of a register request.

    On success with a `content_hash` one use of that copy is counted; on an
    error none is.

    Args:
        may_fetch: False when there is no time for a download now: one that
            would be needed is `ArchiveElsewhere`.
        progress: Told (bytes, total or None) of a download, at most once a
            second and at its end.  Called in this thread.
        should_stop: Asked all along; True ends it with the step's error.
        environment: Where `s3_sse_kms` finds its credentials; os.environ if None.

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
        return _with_archive(
            request,
            runtime,
            request.url,
            places,
            cache,
            may_fetch,
            progress,
            should_stop,
            environment,
        )
    except OSError as error:
        raise unreadable(request.url, f"the disk says: {error.strerror}") from None


def _with_archive(
    request: ArchiveRequest,
    runtime: str | None,
    url: str,
    places: ArchivePlaces,
    cache: ArchiveCache,
    may_fetch: bool,
    progress: Progress,
    should_stop: Callable[[], bool],
    environment: Mapping[str, str] | None,
) -> ResolvedArchive:
    path, content_hash = obtain(
        request, url, places, cache, may_fetch, progress, should_stop, environment
    )
    if content_hash is None:
        return _read(request, runtime, directory_model(path), None)
    try:
        return _read(request, runtime, _root(path), content_hash)
    except BaseException:
        cache.release(content_hash)
        raise


def obtain(
    request: ArchiveRequest,
    url: str,
    places: ArchivePlaces,
    cache: ArchiveCache,
    may_fetch: bool,
    progress: Progress,
    should_stop: Callable[[], bool],
    environment: Mapping[str, str] | None,
) -> tuple[Path, str | None]:
    """The unpacked files of an archive, and the hash under which one use of them is counted.

    None stands for a folder, which is used as it lies there.

    Raises:
        ArchiveError: any of its kinds.
    """
    location = _locate(request, url, places)
    if isinstance(location, LocalDirectory):
        return location.path, None
    copy = cache.find(request.known_hash, should_stop=should_stop) if request.known_hash else None
    if copy is None:
        if isinstance(location, ArchiveNotFound):
            raise location
        if isinstance(location, Remote) and not may_fetch:
            raise ArchiveElsewhere("The archive is not here; it must be fetched.", url=url)
        copy = _obtain(request, location, places, cache, progress, should_stop, environment)
    return copy.path, copy.sha256


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


# -- obtaining a copy ---------------------------------------------------------


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


def _obtain(
    request: ArchiveRequest,
    location: LocalFile | Remote,
    places: ArchivePlaces,
    cache: ArchiveCache,
    progress: Progress,
    should_stop: Callable[[], bool],
    environment: Mapping[str, str] | None,
) -> CachedArchive:
    url = request.url or ""
    if isinstance(location, LocalFile):
        with location.path.open("rb") as file:
            return cache.acquire(file, url, should_stop=should_stop)
    credentials = _credentials(request, url, environment) if request.s3_sse_kms else None
    log.info("download started", host=urlsplit(location.url).netloc)
    wanted = FetchRequest(location.url, url, places.allowed_urls, credentials)
    with (
        fetched(
            wanted,
            places.downloads_dir,
            places.fetch_limits,
            progress=progress,
            should_stop=should_stop,
        ) as download,
        download.path.open("rb") as file,
    ):
        log.info("download complete", bytes=download.size_bytes, sha256=download.sha256)
        return cache.acquire(file, url, sha256=download.sha256, should_stop=should_stop)


def _credentials(
    request: ArchiveRequest, url: str, environment: Mapping[str, str] | None
) -> S3Credentials:
    found = S3Credentials.from_environment(os.environ if environment is None else environment)
    if found is None:
        raise failed(
            url, "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_DEFAULT_REGION must be set"
        )
    return found


# -- reading what is in it ----------------------------------------------------


def _read(
    request: ArchiveRequest, runtime: str | None, model_dir: Path, content_hash: str | None
) -> ResolvedArchive:
    url = request.url or ""
    manifest = read_manifest(model_dir, url)
    model_dir = model_dir / manifest.folder
    serving = read_serving_properties(model_dir, url)
    if request.engine or serving.engine:
        check_engine(request.engine or serving.engine, url)
    if manifest.raw is None and (serving.is_stated or not _names_handler(request, manifest)):
        return _read_djl(request, runtime, model_dir, content_hash, manifest, serving)
    name, version = _name(request, manifest, url), _version(request, manifest, url)
    warnings: list[str] = []
    config = _read_config(model_dir, manifest, url, warnings)
    if config is None and serving.is_stated:
        config = serving.config
    handler = request.handler or manifest.handler or request.default_handler
    if not handler:
        raise ManifestInvalid("Handler is not defined.", url=url)
    return ResolvedArchive(
        model=name,
        version=version,
        handler=handler,
        runtime=runtime or manifest.runtime,
        url=url,
        model_dir=model_dir,
        manifest=manifest.raw,
        envelope=manifest.envelope,
        config=config,
        config_raw=config.raw if config else {},
        content_hash=content_hash,
        requirements_file=_file(
            model_dir, manifest.requirements_file, "requirementsFile", url, warnings
        ),
        warnings=(*warnings, *(config.warnings if config else ())),
        contract=manifest.contract,
    )


def _root(unpacked: Path) -> Path:
    """Where the model is: archives for DJL Serving may hold one folder with everything in it."""
    inner = directory_model(unpacked)
    return inner if is_djl_folder(inner) else unpacked


def _names_handler(request: ArchiveRequest, manifest: Manifest) -> bool:
    return bool(request.handler or manifest.handler or request.default_handler)


def _read_djl(
    request: ArchiveRequest,
    runtime: str | None,
    model_dir: Path,
    content_hash: str | None,
    manifest: Manifest,
    serving: ServingProperties,
) -> ResolvedArchive:
    """An archive without a manifest: for DJL Serving, if anything says so."""
    url = request.url or ""
    name = _name(request, manifest, url)
    engine = request.engine or serving.engine
    if not engine:
        try:
            engine = check_engine(detect_engine(model_dir, serving.options, url), url)
        except EngineUnknown:
            if serving.is_stated or request.engine is not None:
                raise
            raise ManifestInvalid("Handler is not defined.", url=url) from None
    entry_point, function = serving.entry_point, request.handler or serving.function
    built_in = BUILT_IN.get(check_engine(engine, url))
    if built_in is not None and not (model_dir / entry_point).is_file():
        check_options(serving.options, url)
        entry_point, function = built_in, DEFAULT_FUNCTION
    if ":" in function:
        entry_point, _, function = function.rpartition(":")
    if entry_point.endswith(".py") and not model_dir.joinpath(entry_point).is_file():
        raise ManifestInvalid(f"{entry_point} is not in the archive.", url=url)
    requirements = model_dir / "requirements.txt"
    return ResolvedArchive(
        model=name,
        version=_version(request, manifest, url),
        handler=f"{entry_point}:{function}",
        runtime=runtime or manifest.runtime,
        url=url,
        model_dir=model_dir,
        contract=DJL,
        config=serving.config,
        config_raw=dict(serving.options),
        content_hash=content_hash,
        requirements_file=requirements if requirements.is_file() else None,
    )


def _name(request: ArchiveRequest, manifest: Manifest, url: str) -> str:
    name = request.model or manifest.model_name or request.default_model
    if not name:
        raise ManifestInvalid("Model name is not defined.", url=url)
    return check_model_name(name)


def _version(request: ArchiveRequest, manifest: Manifest, url: str) -> str:
    return check_version(request.version or manifest.model_version)


def _read_config(
    model_dir: Path, manifest: Manifest, url: str, warnings: list[str]
) -> ModelConfig | None:
    path = _file(model_dir, manifest.config_file, "configFile", url, warnings)
    return read_model_config(path, url) if path is not None else None


def _file(
    model_dir: Path, name: str | None, entry: str, url: str, warnings: list[str]
) -> Path | None:
    """A file that the manifest names; it must lie inside the model's own folder.

    A directory of the model store may hold links, so the end of the path counts.
    """
    if name is None:
        return None
    try:
        path = model_dir.joinpath(*member_parts(name)).resolve()
        is_inside = model_dir.resolve() in path.parents
    except (BadMember, OSError, ValueError, RuntimeError):
        is_inside = False
    if not is_inside:
        raise ManifestInvalid(f"The manifest's {entry} leads out of the archive.", url=url)
    if not path.is_file():
        warnings.append(f"the manifest's {entry} is not in the archive and is ignored")
        return None
    return path
