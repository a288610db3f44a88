"""Versions that are served without their archives: not yet fetched, or not to be had.

Such a version has its name, its settings and no workers.  It is registered in
full when its archive has come (`bring_back`); what was announced waits for
that, what could not be had is FAILED, says why, and is tried again when
somebody scales it.
"""

from __future__ import annotations

from dataclasses import replace

from stoker.archives.archive import ResolvedArchive
from stoker.archives.manifest import DEFAULT_RUNTIME
from stoker.errors import StokerError
from stoker.settings import Settings
from stoker.supervisor.archive_source import ArchiveSource
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.desired import DesiredVersion
from stoker.supervisor.engine import Engine
from stoker.supervisor.journal import Journal
from stoker.supervisor.kept_arguments import archive_request
from stoker.supervisor.version_archives import VersionArchives
from stoker.supervisor.versions import Failure, VersionKey, VersionSpec


class AbsentVersions:
    """All of them, by key."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        source: ArchiveSource,
        journal: Journal,
        archives: VersionArchives,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._source = source
        self._journal = journal
        self._archives = archives
        self._versions: dict[VersionKey, DesiredVersion] = {}

    def __contains__(self, key: VersionKey) -> bool:
        return key in self._versions

    def add(self, spec: VersionSpec, desired: DesiredVersion) -> None:
        """Serve what there is of a version: its name.  Raises VersionExists, ShuttingDown."""
        self._engine.versions.register(spec)
        self._versions[desired.key] = desired

    def fail(self, desired: DesiredVersion, failure: str) -> None:
        """Serve what there is of a version: its name, and why it cannot run."""
        if desired.key not in self._versions:
            self.add(self.spec(desired), desired)
        reason = Failure(failure, failure)
        self._engine.versions.fail(desired.key, reason, desired.min_workers, desired.max_workers)

    def forget(self, key: VersionKey) -> None:
        """It was unregistered."""
        self._versions.pop(key, None)

    def spec(self, desired: DesiredVersion) -> VersionSpec:
        """What can be said of a version without its archive."""
        asked = Arguments(dict(desired.asked))
        archive = ResolvedArchive(
            model=desired.model,
            version=desired.version,
            handler=asked.optional("handler", str) or "",
            runtime=asked.optional("runtime", str) or DEFAULT_RUNTIME,
            url=asked.optional("url", str) or "",
        )
        is_startup = desired.item is not None
        try:
            return self._archives.spec(archive, asked, is_startup=is_startup)
        except StokerError:  # what was allowed once is not any more; that may be the failure
            return self._archives.spec(archive, Arguments({}), is_startup=is_startup)

    async def bring_back(self, key: VersionKey) -> VersionSpec | None:
        """Try once more to get a version's archive; None when it is not wanted any more.

        Raises:
            StokerError: It is as it was.
        """
        desired = self._versions[key]
        request = archive_request(desired, self._settings.default_service_handler)
        archive = await self._source.obtain(request)
        spec: VersionSpec | None = None
        try:
            async with self._journal.changing() as state:
                if self._versions.get(key) is not desired:
                    return None
                asked = Arguments(dict(desired.asked))
                spec = self._archives.spec(archive, asked, is_startup=desired.item is not None)
                if archive.content_hash != desired.content_hash:
                    known = state.versions.get(key, desired)
                    fresh = replace(known, content_hash=archive.content_hash)
                    await self._journal.write(state.registering(fresh))
                self._archives.replace(spec, archive)
                del self._versions[key]
                return spec
        finally:
            self._archives.release_unless_held(spec, archive)
