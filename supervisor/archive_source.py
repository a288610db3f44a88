"""Archives for the supervisor: `stoker.archives` in threads, with our settings.

Fetching and unpacking block; the loop must not.  An archive obtained here is
in use until `release`; unused copies are pruned when they grow beyond
`CACHE_BYTES`.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

from stoker.archives.archive import ArchiveRequest, ResolvedArchive
from stoker.archives.definitions import (
    fetch_definition,
    find_template,
    is_definition,
    locate_definition,
)
from stoker.archives.djl_workflow import (
    MAX_DEFINITION_BYTES,
    DjlDefinition,
    find_definition,
    parse_definition,
)
from stoker.archives.fetch import FetchLimits
from stoker.archives.location import LocalDirectory, locate
from stoker.archives.members import UnpackLimits, unreadable
from stoker.archives.obtaining import ArchivePlaces, Terms, open_cache
from stoker.archives.resolve import resolve
from stoker.archives.startup import StartupModel, startup_names
from stoker.archives.war import WorkflowArchive, resolve_war
from stoker.errors import StokerError
from stoker.logs import get_logger
from stoker.settings import Settings
from stoker.supervisor.environments import Environments
from stoker.supervisor.worker_environment import compile_blacklist, inherited
from stoker.supervisor.worker_user import WorkerUser

log = get_logger("archives")

THREADS: Final = 4
#: Unused unpacked archives are kept up to this, for the next registration.
CACHE_BYTES: Final = 8 << 30


class ArchiveSource:
    """Obtains and releases archives.

    Args:
        user: Who must be able to read them, if workers are not the server's own user.
    """

    def __init__(self, settings: Settings, user: WorkerUser | None = None) -> None:
        self._settings = settings
        self._workflow_store = settings.workflow_store
        gid = None if user is None else user.gid
        self._places = ArchivePlaces(
            model_store=settings.model_store,
            cache_dir=settings.cache_dir,
            allowed_urls=settings.allowed_urls,
            fetch_limits=FetchLimits(settings.max_archive_bytes, settings.download_timeout_s),
            unpack_limits=UnpackLimits(
                max_files=settings.max_archive_files,
                max_unpacked_bytes=settings.max_unpacked_bytes,
                max_member_bytes=settings.max_unpacked_bytes,
            ),
        )
        self._cache = open_cache(self._places, readers=gid)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="archive")
        self._is_stopping = threading.Event()
        self._environments = Environments(
            settings.cache_dir,
            installs=settings.install_py_dep_per_model,
            environ=inherited(os.environ, compile_blacklist(settings.blacklist_env_vars)),
            timeout_s=settings.download_timeout_s,
            should_stop=self._is_stopping.is_set,
            readers=gid,
        )

    async def obtain(
        self, request: ArchiveRequest, *, may_fetch: bool = True, store: Path | None = None
    ) -> ResolvedArchive:
        """Find, fetch, unpack, read, and install what it requires.

        Args:
            store: In place of the model store.
            may_fetch: False when there is no time for the network now.

        Raises:
            ArchiveElsewhere: It would have to be fetched, or its requirements.
            EnvironmentFailed, and what `archives.resolve.resolve` raises.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._resolve, request, may_fetch, store)

    async def obtain_war(
        self, request: ArchiveRequest, *, may_fetch: bool = True
    ) -> WorkflowArchive:
        """A workflow's archive, from the workflow store.  Raises what `archives.war` raises."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._resolve_war, request, may_fetch)

    async def is_definition(self, url: str) -> bool:
        """Does a url mean a definition of DJL's, by its ending or by what lies there?"""
        if is_definition(url):
            return True
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._holds_definition, url)

    def _holds_definition(self, url: str) -> bool:
        try:
            location = locate(url, self._places.model_store, self._places.allowed_urls)
        except StokerError:
            return False  # said where it is to be fetched
        return isinstance(location, LocalDirectory) and bool(find_definition(location.path))

    async def obtain_definition(
        self, url: str, parameters: Mapping[str, str], template: str | None
    ) -> tuple[DjlDefinition, Path]:
        """A definition of DJL's, and the folder that it stands in.

        Args:
            template: Its name, in place of a url.

        Raises:
            ArchiveError, WorkflowInvalid, GraphInvalid.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, self._read_definition, url, parameters, template
        )

    def _read_definition(
        self, url: str, parameters: Mapping[str, str], template: str | None
    ) -> tuple[DjlDefinition, Path]:
        path = (
            locate_definition(url, self._places)
            if template is None
            else find_template(template, self._places.model_store)
        )
        if path is None:
            return fetch_definition(url, self._places, parameters, self._is_stopping.is_set)
        try:
            with path.open("rb") as file:
                text = file.read(MAX_DEFINITION_BYTES + 1)
        except OSError as error:
            raise unreadable(url, f"cannot read: {error.strerror}") from None
        return parse_definition(text, url, str(path.parent), parameters), path.parent

    def share(self, content_hash: str | None) -> None:
        """One more use of a copy that is in use."""
        if content_hash is not None:
            self._cache.find(content_hash)

    def release_copy(self, content_hash: str | None) -> None:
        """One use less."""
        if content_hash is not None:
            self._cache.release(content_hash)

    def _resolve_war(self, request: ArchiveRequest, may_fetch: bool) -> WorkflowArchive:
        store = self._workflow_store or self._places.model_store
        places = replace(self._places, model_store=store)
        terms = Terms(may_fetch, should_stop=self._is_stopping.is_set)
        return resolve_war(request, places, self._cache, terms)

    def release(self, archive: ResolvedArchive) -> None:
        """The version is gone; its unpacked copy and its environment may be pruned."""
        if archive.environment and not self._is_stopping.is_set():
            self._threads.submit(self._environments.release, archive)
        if archive.content_hash is not None:
            self._cache.release(archive.content_hash)
            if not self._is_stopping.is_set():
                self._threads.submit(self._cache.prune, CACHE_BYTES)

    def startup_models(self) -> list[StartupModel]:
        """What `load_models` means.  Raises SettingsError."""
        return startup_names(self._settings.model_store, self._settings.load_models)

    def close(self) -> None:
        """Stop downloads and wait for the threads."""
        self._is_stopping.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _resolve(
        self, request: ArchiveRequest, may_fetch: bool, store: Path | None
    ) -> ResolvedArchive:
        def progress(done_bytes: int, total_bytes: int | None) -> None:
            log.info("downloading", url=request.url, bytes=done_bytes, of=total_bytes)

        places = self._places if store is None else replace(self._places, model_store=store)
        terms = Terms(may_fetch, progress, self._is_stopping.is_set)
        archive = resolve(request, places, self._cache, terms)
        try:
            return self._environments.prepare(archive, may_build=may_fetch)
        except BaseException:
            self.release(archive)
            raise
